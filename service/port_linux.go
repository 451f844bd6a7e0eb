package service

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// tcpListen is TCP_LISTEN of include/net/tcp_states.h as /proc/net/tcp prints it.
const tcpListen = "0A"

// listenInodes returns the inodes of the sockets that listen on port, from the text of
// /proc/net/tcp or tcp6. Finding a listener by connecting to it would leave a connection in the
// queues that a snapshot then has to drain, and some servers log or refuse it.
func listenInodes(table []byte, port uint16) []uint64 {
	var inodes []uint64
	want := fmt.Sprintf("%04X", port)
	for _, line := range bytes.Split(table, []byte{'\n'}) {
		// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
		f := strings.Fields(string(line))
		if len(f) < 10 || f[3] != tcpListen {
			continue
		}
		if _, p, ok := strings.Cut(f[1], ":"); !ok || p != want {
			continue
		}
		if n, err := strconv.ParseUint(f[9], 10, 64); err == nil {
			inodes = append(inodes, n)
		}
	}
	return inodes
}

// listening tells whether a process of the cgroup holds a socket that listens on port, as seen in
// the network namespace of pid.
func listening(cgroupPath string, pid int, port uint16) bool {
	wanted := make(map[string]bool)
	for _, table := range []string{"tcp", "tcp6"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			continue // no IPv6, or the process has just ended
		}
		for _, inode := range listenInodes(data, port) {
			wanted[fmt.Sprintf("socket:[%d]", inode)] = true
		}
	}
	if len(wanted) == 0 {
		return false
	}
	found := false
	eachID(cgroupPath, "cgroup.procs", func(pid int) { found = found || holdsAny(pid, wanted) })
	return found
}

func holdsAny(pid int, wanted map[string]bool) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	d, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, n := range names {
		if target, err := os.Readlink(dir + "/" + n); err == nil && wanted[target] {
			return true
		}
	}
	return false
}
