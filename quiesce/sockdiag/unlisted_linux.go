package sockdiag

import (
	"bytes"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// unlisted looks at what Options.Pipes and Options.Unlisted name. All descriptors are passed over the first time, and if the
// look is a thorough one that found nothing else: as long as something is busy, what was known of them before will do.
func (l *look) unlisted() error {
	h, o := &l.ins.handles, &l.ins.options
	if !o.Unlisted && !o.Pipes {
		return nil
	}
	listed := len(l.found)
	if h.sockets == nil || l.walker.thorough && listed == 0 {
		if err := l.walk(); err != nil {
			return err
		}
	}
	for _, at := range h.sockets {
		if !o.Unlisted || l.excluded(at.pid) {
			continue
		}
		var err error
		switch l.kind(at) {
		case kindVsock:
			_, err = l.duplicate(at, func(fd int) { l.vsock(at, fd) })
		case kindTCP:
			// Bytes in one while the tables show none at all are bytes that the tables do not show.
			if l.walker.thorough && listed == 0 {
				_, err = l.duplicate(at, func(fd int) { l.closed(at, fd) })
			}
		}
		if err != nil {
			return err
		}
	}
	for key, ends := range h.pipes {
		if err := l.pipe(ends, h.names[key]); err != nil {
			return err
		}
	}
	return nil
}

func (l *look) excluded(pid int) bool { return slices.Contains(l.ins.options.ExcludePIDs, pid) }

// kind is what has to be known of a socket that is found by its descriptor.
type kind uint8

const (
	kindOther kind = iota
	kindVsock
	kindTCP // and MPTCP
)

// kind asks sockfs for the name of the socket's protocol (sockfs_xattr_get, net/socket.c), once for each socket.
func (l *look) kind(at handle) kind {
	kinds := l.ins.handles.kinds
	is, known := kinds[at.inode]
	if !known {
		var name [32]byte
		path := "/proc/" + strconv.Itoa(at.pid) + "/fd/" + strconv.Itoa(at.fd)
		if n, err := unix.Getxattr(path, "system.sockprotoname", name[:]); err == nil {
			is = kindOf(name[:n])
		}
		kinds[at.inode] = is
	}
	return is
}

func kindOf(name []byte) kind {
	switch string(bytes.TrimRight(name, "\x00")) {
	case "AF_VSOCK":
		return kindVsock
	case "TCP", "TCPv6", "MPTCP", "MPTCPv6":
		return kindTCP
	}
	return kindOther
}

// closed: once both sides have closed, a TCP socket is in no table any more, but what it has received can still be read.
func (l *look) closed(at handle, fd int) {
	if listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listening != 0 {
		return
	}
	n := queueBytes(fd, unix.SIOCINQ)
	if n == 0 {
		return
	}
	s := l.add(l.ins.spaces[0], "tcp", verdict{reason: whyUnread, unread: uint64(n)})
	s.Inode, s.PID, s.Comm = at.inode, at.pid, commandOf(at.pid)
	if proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err == nil && proto == protoMPTCP {
		s.Protocol = "mptcp"
	}
	if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
		s.setState(info.State)
	}
	if sa, err := unix.Getsockname(fd); err == nil {
		s.Local = inetName(sa)
	}
	if sa, err := unix.Getpeername(fd); err == nil {
		s.Remote = inetName(sa)
	}
}

func inetName(sa unix.Sockaddr) string {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)).String()
	}
	return ""
}

// vsock: SIOCOUTQ is answered since Linux 6.11 and SIOCINQ since 6.17; before, and where a transport has neither, a look
// at the bytes without taking them.
func (l *look) vsock(at handle, fd int) {
	var v verdict
	state := uint8(tcpEstablished)
	if listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && listening != 0 {
		state = tcpListen
		if pollIn(fd) {
			v = verdict{reason: whyAccept, queued: 1}
		}
	} else {
		v = bytesVerdict(peek(fd), uint64(queueBytes(fd, unix.SIOCOUTQ)), whyUnsent)
	}
	if v.reason == "" {
		return
	}
	s := l.add(l.ins.spaces[0], "vsock", v)
	s.family, s.State = unix.AF_VSOCK, stateName(state)
	s.Inode, s.PID, s.Comm = at.inode, at.pid, commandOf(at.pid)
	if sa, err := unix.Getsockname(fd); err == nil {
		s.Local = vsockName(sa)
	}
	if sa, err := unix.Getpeername(fd); err == nil {
		s.Remote = vsockName(sa)
	}
}

// peek counts unread bytes; if the kernel does not count them, it says whether there are any.
func peek(fd int) uint64 {
	if n := queueBytes(fd, unix.SIOCINQ); n > 0 {
		return uint64(n)
	}
	if !pollIn(fd) {
		return 0
	}
	var b [4096]byte
	n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err != nil || n < 0 {
		return 0
	}
	return uint64(n)
}

func vsockName(sa unix.Sockaddr) string {
	if v, ok := sa.(*unix.SockaddrVM); ok {
		return fmt.Sprintf("%d:%d", v.CID, v.Port)
	}
	return ""
}

// pipe counts a pipe between processes. One within a process (an event loop's own wake-up) is that process's business, and one
// that an excluded process reads is drained by it.
func (l *look) pipe(ends []handle, name string) error {
	excluded, shared := false, false
	for _, e := range ends {
		excluded, shared = excluded || l.excluded(e.pid), shared || e.pid != ends[0].pid
	}
	if excluded || !shared {
		return nil
	}
	s := Socket{Protocol: "pipe", Local: name, Inode: ends[0].inode, Reason: whyUnread, pipe: true}
	if name == "" {
		s.Local = fmt.Sprintf("pipe %d", s.Inode)
	}
	for _, e := range ends {
		there, err := l.duplicate(e, func(fd int) {
			s.Unread = uint64(queueBytes(fd, unix.TIOCINQ)) // FIONREAD is the same at either end (pipe_ioctl)
			s.reads(fd, e.pid)
		})
		if err != nil {
			return err
		}
		if there && (s.Unread == 0 || s.PID != 0) {
			break
		}
	}
	if s.Unread > 0 {
		l.found = appendSocket(l.found, &s)
	}
	return nil
}

// reads names the process as the owner if its end is for reading.
func (s *Socket) reads(fd, pid int) {
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err == nil && flags&unix.O_ACCMODE != unix.O_WRONLY {
		s.PID, s.Comm = pid, commandOf(pid)
	}
}
