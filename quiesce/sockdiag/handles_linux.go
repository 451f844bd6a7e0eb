package sockdiag

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// What no table of the kernel shows is asked of the socket itself, through a duplicate of its owner's descriptor that lives
// for a few microseconds (pidfd_getfd, Linux 5.6; needs ptrace access, which PID 1 has). A duplicate must not live
// longer: it would keep open what its owner closes.

// handle is a descriptor of a process.
type handle struct {
	pid, fd int
	inode   uint64
}

// handles remembers where the sockets and pipes of all processes are, so that one pass over all descriptors serves many
// looks. What it says may be out of date; a duplicate is checked for the inode before it is used.
type handles struct {
	sockets map[uint64]handle
	kinds   map[uint64]kind // of sockets by inode, as far as they were asked
	pipes   map[uint64][]handle
	names   map[uint64]string // of FIFOs
	missing map[uint64]bool   // sockets that no process has open, as of the last pass
	rows    []unixRow         // reused
}

// walker is one look's use of descriptors.
type walker struct {
	thorough bool // pass over all descriptors even if what is wanted was not there the last time
	walked   bool
	pidfds   map[int]int
}

// release closes the pidfds of a look.
func (l *look) release() {
	for _, fd := range l.walker.pidfds {
		unix.Close(fd)
	}
	l.walker.pidfds = nil
}

// walk passes over all descriptors, at most once a look.
func (l *look) walk() error {
	if l.walker.walked {
		return nil
	}
	l.walker.walked = true
	h := &l.ins.handles
	h.sockets, h.missing = make(map[uint64]handle), make(map[uint64]bool)
	h.pipes, h.names = make(map[uint64][]handle), make(map[uint64]string)
	pids, err := processes()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := l.ctx.Err(); err != nil {
			return err
		}
		err := eachDescriptor(pid, func(dir, fd int, target []byte) bool {
			l.ins.note(dir, handle{pid: pid, fd: fd}, target)
			return true
		})
		if err != nil && !gone(err) {
			return fmt.Errorf("descriptors of process %d: %w", pid, err)
		}
	}
	kinds := make(map[uint64]kind, len(h.kinds))
	for inode := range h.sockets {
		if is, ok := h.kinds[inode]; ok {
			kinds[inode] = is
		}
	}
	h.kinds = kinds
	return nil
}

func (ins *Inspector) note(dir int, at handle, target []byte) {
	h := &ins.handles
	if inode, ok := parseLink(target, "socket:["); ok {
		at.inode = inode
		if _, known := h.sockets[inode]; !known {
			h.sockets[inode] = at
		}
		return
	}
	if !ins.options.Pipes {
		return
	}
	if inode, ok := parseLink(target, "pipe:["); ok {
		at.inode = inode
		h.pipes[inode] = append(h.pipes[inode], at)
	} else if len(target) > 0 && target[0] == '/' {
		ins.noteFIFO(dir, at, target)
	}
}

// noteFIFO asks for what the kernel has at hand (AT_STATX_DONT_SYNC): a descriptor may be of a file that a stuck server, or
// rouse itself over FUSE, would have to be asked about. The key mixes in the device; FIFOs are few.
func (ins *Inspector) noteFIFO(dir int, at handle, target []byte) {
	var st unix.Statx_t
	const flags = unix.AT_STATX_DONT_SYNC | unix.AT_NO_AUTOMOUNT
	err := unix.Statx(dir, strconv.Itoa(at.fd), flags, unix.STATX_TYPE|unix.STATX_INO, &st)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return
	}
	at.inode = st.Ino
	key := 1<<63 | uint64(st.Dev_minor)<<48 ^ st.Ino
	ins.handles.pipes[key] = append(ins.handles.pipes[key], at)
	ins.handles.names[key] = string(target)
}

// duplicate runs f with a short-lived duplicate of a descriptor. It returns false if it is not there any more, and an
// error if it is and we may not have it: what cannot be looked at must not pass for idle.
func (l *look) duplicate(at handle, f func(fd int)) (bool, error) {
	pidfd, err := l.pidfd(at.pid)
	if err != nil {
		return false, unlessGone(at, err)
	}
	fd, err := unix.PidfdGetfd(pidfd, at.fd, 0)
	if err != nil {
		return false, unlessGone(at, err)
	}
	defer unix.Close(fd)
	if inode, err := inodeOf(fd); err != nil || inode != at.inode {
		return false, err
	}
	f(fd)
	return true, nil
}

func unlessGone(at handle, err error) error {
	if gone(err) || errors.Is(err, unix.EBADF) {
		return nil
	}
	return fmt.Errorf("duplicate descriptor %d of process %d: %w", at.fd, at.pid, err)
}

// pidfd opens a process once a look.
func (l *look) pidfd(pid int) (int, error) {
	if fd, ok := l.walker.pidfds[pid]; ok {
		return fd, nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, err
	}
	if l.walker.pidfds == nil {
		l.walker.pidfds = make(map[int]int)
	}
	l.walker.pidfds[pid] = fd
	return fd, nil
}

// socket runs f with a duplicate of a socket, walking over all descriptors if it is not where it was. A socket that no
// process has open (in flight, or not accepted yet) is not reached.
func (l *look) socket(inode uint64, f func(fd int)) error {
	h := &l.ins.handles
	if at, ok := h.sockets[inode]; ok {
		if found, err := l.duplicate(at, f); found || err != nil {
			return err
		}
	}
	if !l.walker.walked {
		if h.missing[inode] && !l.walker.thorough {
			return nil
		}
		if err := l.walk(); err != nil {
			return err
		}
		if at, ok := h.sockets[inode]; ok {
			if found, err := l.duplicate(at, f); found || err != nil {
				return err
			}
		}
	}
	h.missing[inode] = true
	return nil
}

// unixHandles looks at unix sockets without CONFIG_UNIX_DIAG: /proc/net/unix says which there are, the sockets themselves
// what they hold.
func (l *look) unixHandles(ns *namespace) error {
	rows := l.ins.handles.rows[:0]
	var row unixRow
	err := ns.lines("unix", l.ins.buf, func(line []byte) {
		if parseProcUnix(line, &row) {
			row.name = nil // points into the buffer; asked for again if needed
			rows = append(rows, row)
		}
	})
	l.ins.handles.rows = rows
	for i := range rows {
		r := &rows[i]
		if err != nil {
			break
		}
		if l.ins.own(uint64(r.inode)) {
			continue
		}
		err = l.socket(uint64(r.inode), func(fd int) { l.unixHandle(ns, r, fd) })
	}
	return err
}

func (l *look) unixHandle(ns *namespace, r *unixRow, fd int) {
	readable := pollIn(fd)
	if r.state == tcpListen {
		if readable {
			r.rqueue = 1 // at least one; the kernel does not say how many
		}
	} else {
		r.rqueue, r.wqueue = queueBytes(fd, unix.SIOCINQ), queueBytes(fd, unix.SIOCOUTQ)
		if readable && r.rqueue == 0 && r.kind == unix.SOCK_DGRAM {
			r.rqueue = 1 // a message of no bytes
		}
	}
	v := unixVerdict(r)
	if v.reason == "" {
		return
	}
	s := l.addUnix(ns, r, v)
	if sa, err := unix.Getsockname(fd); err == nil {
		if at, ok := sa.(*unix.SockaddrUnix); ok {
			s.Local = at.Name
		}
	}
	// Without diag the far end is known only by the process that made it, which is what an exclusion needs.
	if cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil && r.state == tcpEstablished {
		s.peerPID = int(cred.Pid)
	}
}

func queueBytes(fd int, request uint) uint32 {
	n, err := unix.IoctlGetInt(fd, request)
	if err != nil || n < 0 {
		return 0
	}
	return uint32(n)
}

func pollIn(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&unix.POLLIN != 0
}
