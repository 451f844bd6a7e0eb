package rtnl

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// LinkEvents is the group to Dial for word of links that come, change and go (RTMGRP_LINK).
const LinkEvents = 1

// Conn is a netlink socket in the network namespace of the thread that dialled it.
type Conn struct {
	fd  int
	seq uint32
	buf []byte
}

// Dial opens a socket that listens to groups as well; 0 for none.
func Dial(groups uint32) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("rtnetlink socket: %w", os.NewSyscallError("socket", err))
	}
	// Both are comfort: without them errors carry no words, and come with the whole request.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return nil, errors.Join(fmt.Errorf("rtnetlink socket: %w", os.NewSyscallError("bind", err)), unix.Close(fd))
	}
	// The kernel never fills more than 32 KiB of a dump's buffer (net/netlink/af_netlink.c netlink_recvmsg, v6.12).
	return &Conn{fd: fd, buf: make([]byte, 64<<10)}, nil
}

// Close closes the socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }

func (c *Conn) send(kind, flags uint16, body []byte) error {
	c.seq++
	b := native.AppendUint32(nil, uint32(lenHeader+len(body)))
	b = native.AppendUint16(b, kind)
	b = native.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = native.AppendUint32(b, c.seq)
	b = native.AppendUint32(b, 0)
	return os.NewSyscallError("sendto", unix.Sendto(c.fd, append(b, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
}

func (c *Conn) receive() ([]message, error) {
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_TRUNC)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("recvfrom", err)
		}
		if n > len(c.buf) {
			return nil, errShort
		}
		return parseMessages(c.buf[:n])
	}
}

// change sends a request and waits for its acknowledgement.
func (c *Conn) change(kind, flags uint16, body []byte) error {
	if err := c.send(kind, flags|unix.NLM_F_ACK, body); err != nil {
		return err
	}
	for {
		list, err := c.receive()
		if err != nil {
			return err
		}
		for _, m := range list {
			if m.seq == c.seq && m.kind == unix.NLMSG_ERROR {
				return parseError(m)
			}
		}
	}
}

// dumpTries is how often a dump that was torn is asked for again. On a machine whose links change faster than
// they can be listed, what the last one said is as true as any.
const dumpTries = 5

// dump collects bodies of kind. They stay valid.
func (c *Conn) dump(request, kind uint16, body []byte) ([][]byte, error) {
	for try := 1; ; try++ {
		out, torn, err := c.dumpOnce(request, kind, body)
		if err != nil || !torn || try == dumpTries {
			return out, err
		}
	}
}

func (c *Conn) dumpOnce(request, kind uint16, body []byte) (out [][]byte, torn bool, err error) {
	if err := c.send(request, unix.NLM_F_DUMP, body); err != nil {
		return nil, false, err
	}
	for {
		list, err := c.receive()
		if err != nil {
			return nil, false, err
		}
		for _, m := range list {
			if m.seq != c.seq {
				continue // an event, or the rest of a dump that was given up
			}
			torn = torn || m.flags&unix.NLM_F_DUMP_INTR != 0
			switch m.kind {
			case unix.NLMSG_DONE:
				return out, torn, nil
			case unix.NLMSG_ERROR:
				return nil, false, parseError(m)
			case kind:
				out = append(out, append([]byte(nil), m.body...))
			}
		}
	}
}

// WaitEvent returns when something has happened in the groups dialled, or the time is over. What it was is not told: look again.
func (c *Conn) WaitEvent(timeout time.Duration) error {
	_, err := unix.Poll([]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}, int(timeout.Milliseconds())+1)
	if err != nil && !errors.Is(err, syscall.EINTR) {
		return os.NewSyscallError("poll", err)
	}
	for {
		if _, _, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_DONTWAIT); err != nil {
			return nil // EAGAIN: all read. ENOBUFS: some were lost, which changes nothing.
		}
	}
}
