package rootfs

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// socket is a wire over a socket; the runtime's poller waits on it, so that a context can end the wait.
type socket struct {
	fd   int
	file *os.File
	stop func() bool
	ctx  context.Context
	to   unix.Sockaddr                          // nil: fd is connected, or bound to a link
	wrap func([]byte) []byte                    // nil: the kernel makes the headers
	open func(frame []byte) (b []byte, ok bool) // nil: as wrap
	buf  [2048]byte                             // longer ones than Ethernet carries are cut off, and refused
}

// newSocket takes fd over, whatever happens.
func newSocket(ctx context.Context, fd int, err error) (*socket, error) {
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	s := &socket{fd: fd, file: os.NewFile(uintptr(fd), "socket"), ctx: ctx}
	s.stop = context.AfterFunc(ctx, func() { _ = s.file.SetReadDeadline(time.Unix(1, 0)) })
	return s, nil
}

func (s *socket) close() {
	s.stop()
	_ = s.file.Close()
}

func (s *socket) send(b []byte) error {
	if s.wrap != nil {
		b = s.wrap(b)
	}
	if s.to != nil {
		return unix.Sendto(s.fd, b, 0, s.to)
	}
	_, err := unix.Write(s.fd, b)
	return err
}

func (s *socket) receive(until time.Time) ([]byte, error) {
	for {
		if err := s.file.SetReadDeadline(until); err != nil {
			return nil, err
		}
		if s.ctx.Err() != nil { // its end may have set a deadline before us
			return nil, s.ctx.Err()
		}
		n, err := s.file.Read(s.buf[:])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed):
			return nil, err
		case err != nil:
			// ECONNREFUSED of a server that is down, ENETDOWN of a link that comes back: as if nothing had been said.
			sleep(s.ctx, min(time.Until(until), 100*time.Millisecond))
			if !time.Now().Before(until) {
				return nil, os.ErrDeadlineExceeded
			}
			continue
		}
		if s.open == nil {
			return s.buf[:n], nil
		}
		if b, ok := s.open(s.buf[:n]); ok {
			return b, nil
		}
	}
}

// openWire4 is a wire for DHCP over one link: by whole frames, to everybody.
func openWire4(ctx context.Context, k *keeper) (*socket, error) {
	// Protocol 0 until the filter is set: nothing else is ever queued.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		err = fmt.Errorf("%w: kernel option CONFIG_PACKET, module af_packet", err)
	}
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(clientFilter)), Filter: &clientFilter[0]})
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: etherIPv4>>8 | etherIPv4&0xff<<8, Ifindex: k.link.Index})
	}
	s, err := newSocket(ctx, fd, err)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	s.wrap = func(b []byte) []byte {
		var own netip.Addr
		if k.lease != nil {
			own = k.lease.Address.Addr()
		}
		return dhcpFrame(hardware(k.link.MAC), own, b)
	}
	s.open = dhcpPayload
	return s, nil
}

// clientFilter lets through UDP to the client's port over IPv4, whole or first fragments (classic BPF, linux/filter.h).
var clientFilter = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: etherLen + 9},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: protoUDP, Jf: 6},
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: etherLen + 6},
	{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 0x1fff, Jt: 4},
	{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: etherLen},
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_IND, K: etherLen + 2},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: portClient, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
	{Code: unix.BPF_RET | unix.BPF_K},
}
