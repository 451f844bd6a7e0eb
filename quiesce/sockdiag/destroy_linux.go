package sockdiag

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// destroyBatch is how many SOCK_DESTROY messages go in one send. Each may be answered by an error of 36 bytes that
// takes a kernel buffer of less than 1 KiB from the default receive buffer of 208 KiB.
const destroyBatch = 128

// Destroy ends connections by SOCK_DESTROY, each by its cookie: a TCP connection is reset towards its process and its peer, a
// connected UDP socket is disconnected; the process's next call fails with ECONNABORTED. The kernel sends TCP's RST
// at once: whoever must not let one escape shuts the gate first.
//
// What can be destroyed is TCP and UDP of both families. Afterwards the sockets are looked for again, and left are those
// that are still there (with the kernel's refusal as Reason), and those of other kinds. A TIME_WAIT that an older kernel (before 6.11)
// refuses to destroy is not reported: it holds no data and no key, and it ends by itself.
func (ins *Inspector) Destroy(ctx context.Context, sockets []Socket) (left []Socket, err error) {
	ins.mu.Lock()
	defer ins.mu.Unlock()
	refused := make(map[uint64]string)
	var ours []Socket
	for _, s := range sockets {
		if !destroyable(&s) {
			s.Reason = "not of a kind that the kernel destroys"
			left = append(left, s)
			continue
		}
		ours = append(ours, s)
	}
	for at := 0; at < len(ours); at += destroyBatch {
		if err := ctx.Err(); err != nil {
			return append(left, ours[at:]...), err
		}
		batch := ours[at:min(at+destroyBatch, len(ours))]
		if err := ins.space.destroy(ins.buf, batch, refused); err != nil {
			return append(left, ours[at:]...), fmt.Errorf("destroy %d sockets: %w", len(batch), err)
		}
	}
	still, err := ins.remaining(ctx, ours, refused)
	return append(left, still...), err
}

func destroyable(s *Socket) bool {
	return s.Cookie != 0 && (s.family == afInet || s.family == afInet6) &&
		(s.proto == protoTCP || s.proto == protoUDP || s.proto == protoUDPLite)
}

// destroy sends one batch. Only refusals are answered, and the last message asks for an answer in any case, which marks the end.
func (ns *namespace) destroy(buf []byte, batch []Socket, refused map[uint64]string) error {
	c := ns.diag
	first := c.seq + 1
	var msg []byte
	for i := range batch {
		flags := uint16(0)
		if i == len(batch)-1 {
			flags = flagAck
		}
		msg = appendDestroy(msg, batch[i].family, uint8(batch[i].proto), &batch[i].id, first+uint32(i), flags)
	}
	c.seq += uint32(len(batch))
	if _, err := unix.Write(c.fd, msg); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	for {
		n, err := c.receive(buf)
		if err != nil {
			return err
		}
		done, err := readRefusals(buf[:n], first, batch, refused)
		if done || err != nil {
			return err
		}
	}
}

func readRefusals(b []byte, first uint32, batch []Socket, refused map[uint64]string) (done bool, err error) {
	for len(b) > 0 {
		var h header
		var payload []byte
		if h, payload, b, err = nextMessage(b); err != nil {
			return true, err
		}
		i := int(h.seq - first)
		if h.kind != nlmsgError || i < 0 || i >= len(batch) {
			continue
		}
		errno := unix.Errno(errnoOf(payload))
		// ENOENT: it went by itself. ESTALE: another has its addresses now (sock_diag_check_cookie).
		if errno != 0 && !errors.Is(errno, unix.ENOENT) && !errors.Is(errno, unix.ESTALE) {
			refused[batch[i].Cookie] = errno.Error()
		}
		done = done || i == len(batch)-1
	}
	return done, nil
}

// remaining looks again: what is gone is what the kernel no longer lists as a connection.
func (ins *Inspector) remaining(ctx context.Context, ours []Socket, refused map[uint64]string) ([]Socket, error) {
	if len(ours) == 0 {
		return nil, nil
	}
	l := look{ins: ins, ctx: ctx}
	there := make(map[uint64]uint8, len(ours)) // state now; 0: not seen
	for i := range ours {
		there[ours[i].Cookie] = 0
	}
	if err := l.cookies(ins.space, there); err != nil {
		return ours, fmt.Errorf("look again: %w", err)
	}
	var left []Socket
	for _, s := range ours {
		state := there[s.Cookie]
		if state == 0 || spent(state, s.Inode) {
			continue
		}
		s.State, s.Reason = stateName(state), "still there after SOCK_DESTROY"
		if why := refused[s.Cookie]; why != "" {
			s.Reason = "SOCK_DESTROY: " + why
		}
		left = append(left, s)
	}
	return left, nil
}

// spent is a connection that holds nothing any more: TIME_WAIT, also where it calls itself FIN_WAIT2 (inet_twsk_diag_fill).
func spent(state uint8, inode uint64) bool {
	return state == tcpTimeWait || state == tcpFinWait2 && inode == 0
}

// cookies notes the states of those connections that are in the map.
func (l *look) cookies(ns *namespace, there map[uint64]uint8) error {
	var row inetRow
	each := func(b []byte) {
		if !parseInet(b, &row) {
			return
		}
		if _, ours := there[row.id.cookie()]; ours {
			there[row.id.cookie()] = row.state
		}
	}
	for i := range ns.sources {
		s := &ns.sources[i]
		states := inheritStates | 1<<tcpListen
		switch {
		case s.kind == "none" || s.family != afInet:
			continue
		case s.proto == protoUDP || s.proto == protoUDPLite:
			states = 1 << tcpEstablished
		case s.proto != protoTCP:
			continue
		}
		for _, family := range [...]uint8{afInet, afInet6} {
			if err := l.dump(ns, s, family, states, nil, each); err != nil {
				return err
			}
		}
	}
	return nil
}
