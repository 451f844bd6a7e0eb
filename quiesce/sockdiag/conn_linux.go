package sockdiag

import (
	"context"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

const (
	// bufferSize holds the largest answer: netlink_dump makes buffers of 32 KiB at most (net/netlink/af_netlink.c).
	bufferSize = 64 << 10
	// maxTorn bounds how often a torn dump is asked for again.
	maxTorn = 16
)

// conn is one netlink socket. It belongs to the network namespace it was made in, wherever its user is.
type conn struct {
	fd    int
	inode uint64 // its own, to leave it out of what it lists
	seq   uint32
	out   []byte                              // room for a request: a look allocates none
	read  func(fd int, p []byte) (int, error) // the seam at which tests tear dumps
}

func dial(protocol int) (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("socket netlink %d: %w", protocol, err)
	}
	c := &conn{fd: fd, out: make([]byte, requestSize), read: unix.Read}
	// A dump is answered inside recv(2); a kernel that does not answer must not hang PID 1 for ever.
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	}
	if err == nil {
		c.inode, err = inodeOf(fd)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set up netlink %d: %w", protocol, err)
	}
	return c, nil
}

func inodeOf(fd int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("fstat: %w", err)
	}
	return st.Ino, nil
}

func (c *conn) close() error { return unix.Close(c.fd) }

// dump sends request and hands every message of the answer to each. If the kernel flags the answer as torn
// (NLM_F_DUMP_INTR) it calls restart, which forgets what each was given, and asks again.
func (c *conn) dump(ctx context.Context, buf, request []byte, each func(payload []byte), restart func()) error {
	for range maxTorn {
		torn, err := c.dumpOnce(ctx, buf, request, each)
		if err != nil || !torn {
			return err
		}
		restart()
	}
	return fmt.Errorf("%d times: %w", maxTorn, ErrTorn)
}

func (c *conn) dumpOnce(ctx context.Context, buf, request []byte, each func([]byte)) (torn bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if err := c.send(request); err != nil {
		return false, err
	}
	// Once begun a dump is read to its end even if ctx ends: half an answer left in the socket would spoil the next.
	for {
		n, err := c.receive(buf)
		if err != nil {
			return torn, err
		}
		done, again, err := c.scan(buf[:n], each)
		torn = torn || again
		if done || err != nil {
			return torn, err
		}
	}
}

func (c *conn) send(request []byte) error {
	c.seq++
	setSeq(request, c.seq)
	if _, err := unix.Write(c.fd, request); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

func (c *conn) receive(buf []byte) (int, error) {
	for {
		n, err := c.read(c.fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("receive: %w", err)
		}
		return n, nil
	}
}

// scan walks one datagram. Messages of an older request, given up on an error, are passed over.
func (c *conn) scan(b []byte, each func([]byte)) (done, torn bool, err error) {
	for len(b) > 0 {
		var h header
		var payload []byte
		if h, payload, b, err = nextMessage(b); err != nil {
			return true, torn, err
		}
		if h.seq != c.seq {
			continue
		}
		torn = torn || h.flags&flagDumpIntr != 0
		if h.kind == nlmsgDone || h.kind == nlmsgError {
			if errno := errnoOf(payload); errno != 0 {
				return true, torn, unix.Errno(errno)
			}
			return true, torn, nil
		}
		each(payload)
	}
	return false, torn, nil
}
