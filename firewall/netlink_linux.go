package firewall

import (
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// netlinkSocket talks to one netlink protocol in the network namespace in
// which it was opened, whichever thread uses it later. It is kept open: to
// close a netfilter socket takes about 20 ms if tables were deleted, because
// the kernel then awaits their RCU grace period (nft_rcv_nl_event in
// net/netfilter/nf_tables_api.c, 6.18).
type netlinkSocket struct {
	fd  int
	seq uint32
	buf []byte
	out encoder // of the question asked
	// unread: an exchange ended, by an error, before its answers were read.
	unread bool
}

// receiveSize holds what the kernel puts into one piece of a dump.
const receiveSize = 64 << 10

func openNetlink(protocol int) (*netlinkSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return &netlinkSocket{fd: fd, buf: make([]byte, receiveSize)}, nil
}

func (s *netlinkSocket) Close() error {
	if s == nil {
		return nil
	}
	return unix.Close(s.fd)
}

// transact sends messages whose last one (of sequence number last) asks for an
// acknowledgement, and gives the first error among the answers. The kernel
// works while we send: every answer is there when send returns.
func (s *netlinkSocket) transact(b []byte, last uint32) error {
	if err := s.send(b); err != nil {
		return err
	}
	var first error
	acknowledged := false
	err := s.receive(func(m message) error {
		if m.typ != nlmsgError {
			return nil
		}
		switch errno, ok := errorOf(m.data); {
		case !ok:
			return errShort
		case errno != 0 && first == nil:
			first = errno
		case errno == 0 && m.seq == last:
			acknowledged = true
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case first != nil:
		return first
	case !acknowledged:
		return errors.New("the kernel did not acknowledge")
	}
	return nil
}

// question is where the next request for ask is written, and it alone.
func (s *netlinkSocket) question() *encoder {
	s.out = encoder{b: s.out.b[:0]}
	return &s.out
}

// ask sends one request and gives each answer to f. Dumps that were torn by a
// change are for the caller to ask again: f sees NLM_F_DUMP_INTR in the flags.
//
// An answer is one message, or those of a dump up to its end, or an error: what comes
// after it is not waited for.
func (s *netlinkSocket) ask(e *encoder, f func(message) error) error {
	if err := s.send(e.finish()); err != nil {
		return err
	}
	over := false
	return s.receiveUntil(&over, func(m message) error {
		over = over || m.flags&unix.NLM_F_MULTI == 0 || m.typ == nlmsgDone
		if m.typ == nlmsgError {
			if errno, ok := errorOf(m.data); ok && errno != 0 {
				return errno
			}
			return nil
		}
		if m.typ < nlmsgMinUse {
			return nil
		}
		return f(m)
	})
}

// send drops answers that an earlier, failed exchange left unread.
func (s *netlinkSocket) send(b []byte) error {
	if s.unread {
		if err := s.receive(func(message) error { return nil }); err != nil {
			return err
		}
	}
	s.unread = true
	if _, err := unix.Write(s.fd, b); err != nil {
		return os.NewSyscallError("send", err)
	}
	return nil
}

// receive reads all answers that are there. A failing f does not leave the
// rest unread.
func (s *netlinkSocket) receive(f func(message) error) error {
	over := false
	return s.receiveUntil(&over, f)
}

// receiveUntil ends sooner once over is true, which f sets.
func (s *netlinkSocket) receiveUntil(over *bool, f func(message) error) error {
	var first error
	for !*over {
		n, err := unix.Read(s.fd, s.buf)
		switch {
		case err == unix.EAGAIN:
			*over = true
			continue
		case err == unix.EINTR:
			continue
		case err != nil:
			return os.NewSyscallError("receive", err)
		}
		if err := messages(s.buf[:n], f); err != nil && first == nil {
			first = err
		}
	}
	s.unread = false
	return first
}

func (s *netlinkSocket) nextSeq() uint32 {
	s.seq++
	return s.seq
}

// errorOf reads struct nlmsgerr: a negated errno, zero for an acknowledgement.
func errorOf(b []byte) (unix.Errno, bool) {
	if len(b) < 4 {
		return 0, false
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(b))), true
}

// describe puts an operation and its object before a cause.
func describe(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}
