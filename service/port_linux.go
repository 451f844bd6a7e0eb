package service

import (
	"os"
	"strconv"
	"strings"

	"rouse/internal/fmt"
)

// tcpListen is TCP_LISTEN of include/net/tcp_states.h as /proc/net/tcp prints it.
const tcpListen = "0A"

// listenInodes returns the inodes of the sockets that listen on port, from the text of
// /proc/net/tcp or tcp6. Finding a listener by connecting to it would leave a connection in the
// queues that a snapshot then has to drain, and some servers log or refuse it.
func listenInodes(table []byte, port uint16) []uint64 {
	var inodes []uint64
	want := fmt.Sprintf("%04X", port)
	for _, line := range strings.Split(string(table), "\n") {
		// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != tcpListen {
			continue
		}
		if _, p, _ := strings.Cut(f[1], ":"); p != want {
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
	proc := "/proc/" + strconv.Itoa(pid) + "/net/tcp"
	tcp4, _ := readKernel(proc)
	tcp6, _ := readKernel(proc + "6") // none without IPv6
	inodes := listenInodes(append(append(tcp4, '\n'), tcp6...), port)
	found := false
	if len(inodes) > 0 {
		eachID(cgroupPath, "cgroup.procs", func(pid int) { found = found || holdsAny(pid, inodes) })
	}
	return found
}

func holdsAny(pid int, inodes []uint64) bool {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd/"
	for _, n := range entries(dir) {
		target, _ := os.Readlink(dir + n)
		for _, inode := range inodes {
			if target == "socket:["+strconv.FormatUint(inode, 10)+"]" {
				return true
			}
		}
	}
	return false
}
