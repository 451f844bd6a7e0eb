package sockdiag

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// owners finds which process has a socket open. The kernel keeps no link from a socket to its processes, so the descriptors
// of all processes are read: once for all sockets of a look, only for those whose owner was not found before, and not so
// often that it takes more than a tenth of a processor.
type owners struct {
	known map[uint64]handle // by inode; of what was busy in the last look. A pid of 0: no process had it open
	comms map[int]string    // by pid, of the same
	last  time.Time         // end of the last pass, and how long it took
	took  time.Duration
}

const (
	cheapPass = 5 * time.Millisecond // is always allowed
	passShare = 10                   // others rest for that many times their own length
)

// fill sets PID and Comm of sockets that have an inode. The lowest pid wins: with a listening socket shared by forked
// workers that is the parent. A socket that got busy just after a long pass stays nameless until the next may be made.
func (o *owners) fill(found []Socket) error {
	known, comms := make(map[uint64]handle, len(found)), make(map[int]string)
	wanted := make(map[uint64]bool)
	for i := range found {
		inode := found[i].Inode
		if inode == 0 || found[i].PID != 0 || found[i].pipe {
			continue
		}
		if at, ok := o.known[inode]; ok {
			known[inode], comms[at.pid] = at, o.comms[at.pid]
		} else {
			wanted[inode] = true
		}
	}
	o.known, o.comms = known, comms
	if begin := time.Now(); len(wanted) > 0 && (o.took < cheapPass || begin.Sub(o.last) > passShare*o.took) {
		if err := o.pass(wanted); err != nil {
			return err
		}
		o.last = time.Now()
		o.took = o.last.Sub(begin)
	}
	for i := range found {
		if at := o.known[found[i].Inode]; at.pid != 0 && found[i].PID == 0 && !found[i].pipe {
			found[i].belong(at, o.comms[at.pid])
		}
	}
	return nil
}

func (s *Socket) belong(at handle, comm string) {
	s.PID, s.Comm = at.pid, comm
	if s.Protocol == "unix" {
		s.InFlight = inFlight(at.pid, at.fd)
	}
}

// pass looks for the wanted sockets in all processes, until all are found.
func (o *owners) pass(wanted map[uint64]bool) error {
	pids, err := processes()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		err := eachSocket(pid, func(fd int, inode uint64) bool {
			if wanted[inode] {
				delete(wanted, inode)
				o.known[inode] = handle{pid: pid, fd: fd, inode: inode}
				if o.comms[pid] == "" {
					o.comms[pid] = commandOf(pid)
				}
			}
			return len(wanted) > 0
		})
		// A process that has gone, or is not ours to look at, owns nothing that could be named.
		if err != nil && !gone(err) && !errors.Is(err, unix.EACCES) {
			return fmt.Errorf("descriptors of process %d: %w", pid, err)
		}
		if len(wanted) == 0 {
			break
		}
	}
	for inode := range wanted {
		o.known[inode] = handle{inode: inode}
	}
	return nil
}

func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }

// processes lists the numbers in /proc, lowest first, as the kernel gives them.
func processes() ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list /proc: %w", err)
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// inFlight reads how many descriptors wait in a unix socket's receive queue: a line of its fdinfo (unix_show_fdinfo, since
// Linux 5.6).
func inFlight(pid, fd int) uint32 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0
	}
	return parseInFlight(b)
}

func parseInFlight(fdinfo []byte) (n uint32) {
	eachLine(fdinfo, func(line []byte) {
		if word, ok := bytes.CutPrefix(line, []byte("scm_fds: ")); ok {
			if v, ok := number(word, 10); ok {
				n = uint32(v)
			}
		}
	})
	return n
}

// eachSocket calls f with each socket that the process has open, until f returns false.
func eachSocket(pid int, f func(fd int, inode uint64) bool) error {
	return eachDescriptor(pid, func(_, fd int, target []byte) bool {
		inode, ok := parseLink(target, "socket:[")
		return !ok || f(fd, inode)
	})
}

// eachDescriptor reads the links of /proc/PID/fd, whose own descriptor is dir, until f returns false.
func eachDescriptor(pid int, f func(dir, fd int, target []byte) bool) error {
	dir, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	var entries [8192]byte
	var target [128]byte
	names := make([]string, 0, 256)
	for {
		n, err := unix.ReadDirent(dir, entries[:])
		if err != nil || n <= 0 {
			return err
		}
		_, _, names = unix.ParseDirent(entries[:n], -1, names[:0])
		for _, name := range names {
			n, err := unix.Readlinkat(dir, name, target[:])
			if err != nil || n < 0 {
				continue // closed meanwhile
			}
			fd, _ := strconv.Atoi(name)
			if !f(dir, fd, target[:n]) {
				return nil
			}
		}
	}
}

// parseLink reads the number out of a link such as "socket:[4711]" or "pipe:[12]".
func parseLink(target []byte, prefix string) (uint64, bool) {
	if len(target) <= len(prefix) || string(target[:len(prefix)]) != prefix {
		return 0, false
	}
	var n uint64
	for _, c := range target[len(prefix):] {
		if c < '0' || c > '9' {
			return n, c == ']'
		}
		n = n*10 + uint64(c-'0')
	}
	return 0, false
}

func commandOf(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(b), "\n")
}
