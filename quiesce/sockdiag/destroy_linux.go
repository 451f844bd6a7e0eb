package sockdiag

import (
	"context"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// destroyBatch is how many SOCK_DESTROY messages go in one send. Each may be answered by an error of 36 bytes that
// takes a kernel buffer of less than 1 KiB from the default receive buffer of 208 KiB.
const destroyBatch = 128

// Destroy ends connections by SOCK_DESTROY, each by its cookie: a TCP connection is reset towards its process and its peer, a
// connected UDP socket is disconnected; the process's next call fails with ECONNABORTED. The kernel sends TCP's RST
// at once: whoever must not let one escape shuts the gate first. Where the kernel has no SOCK_DESTROY for a protocol (UDP
// without CONFIG_INET_UDP_DIAG, UDP-Lite) the socket is disconnected through a duplicate of its owner's descriptor.
//
// What can be destroyed is TCP and UDP of both families, but no listening socket: that would take a service's door away for good.
// Afterwards the sockets are looked for again, and left are those that are still there, with the kernel's refusal as
// Reason, and those of other kinds. A TIME_WAIT that an older kernel refuses to destroy is not reported: it holds no
// data and no key, and it ends by itself.
func (ins *Inspector) Destroy(ctx context.Context, sockets []Socket) (left []Socket, err error) {
	ins.mu.Lock()
	defer ins.mu.Unlock()
	var ours []Socket
	for i := range sockets {
		s := &sockets[i]
		switch why := indestructible(s); {
		case spent(s.state, s.Inode) && s.Cookie == 0: // not to be named, and nothing in it
		case why != "":
			left = appendSocket(left, s)
			left[len(left)-1].Reason = why
		default:
			ours = appendSocket(ours, s)
		}
	}
	if len(ours) == 0 {
		return left, nil
	}
	if err := ins.refresh(); err != nil {
		return sockets, fmt.Errorf("sockdiag: %w", err)
	}
	still, err := ins.destroyAll(ctx, ours)
	for i := range still {
		left = appendSocket(left, &still[i])
	}
	return left, err
}

// appendSocket keeps a copy of 350 bytes from being written out at each place.
func appendSocket(list []Socket, s *Socket) []Socket { return append(list, *s) }

func (ins *Inspector) destroyAll(ctx context.Context, ours []Socket) (left []Socket, err error) {
	l := look{ins: ins, ctx: ctx}
	defer l.release()
	refused := make(map[uint64]string)
	for _, ns := range ins.spaces {
		if err := l.destroyIn(ns, ours, refused); err != nil {
			return ours, fmt.Errorf("destroy %d sockets: %w", len(ours), err)
		}
	}
	if left, err = l.remaining(ours, refused); err != nil || len(left) == 0 {
		return left, err
	}
	tried := false
	for i := range left {
		if left[i].Inode != 0 {
			tried = true
			if err := l.socket(left[i].Inode, disconnect); err != nil {
				return left, fmt.Errorf("disconnect: %w", err)
			}
		}
	}
	if !tried {
		return left, nil
	}
	return l.remaining(left, refused)
}

// disconnect is connect(2) to AF_UNSPEC: what a process does to take its socket off its peer.
func disconnect(fd int) {
	var unspec [16]byte
	_, _, _ = unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspec)), uintptr(len(unspec)))
}

func indestructible(s *Socket) string {
	switch {
	case s.family != afInet && s.family != afInet6, s.proto != protoTCP && s.proto != protoUDP && s.proto != protoUDPLite:
		return "not of a kind that can be destroyed"
	case s.state == tcpListen:
		return "a listening socket is not destroyed"
	case s.Cookie == 0 && s.Inode == 0:
		return "has no name to destroy it by: no diag, and no process has it open"
	}
	return ""
}

// destroyIn sends the messages for one namespace.
func (l *look) destroyIn(ns *namespace, ours []Socket, refused map[uint64]string) error {
	batch := make([]*Socket, 0, destroyBatch)
	for i := range ours {
		if ours[i].Netns == ns.inode && ours[i].Cookie != 0 {
			batch = append(batch, &ours[i])
		}
		if len(batch) == destroyBatch || len(batch) > 0 && i == len(ours)-1 {
			if err := l.ctx.Err(); err != nil {
				return err
			}
			if err := ns.destroy(l.ins.buf, batch, refused); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	return nil
}

// destroy sends one batch. Only refusals are answered, and the last message asks for an answer in any case, which marks the end.
func (ns *namespace) destroy(buf []byte, batch []*Socket, refused map[uint64]string) error {
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

func readRefusals(b []byte, first uint32, batch []*Socket, refused map[uint64]string) (done bool, err error) {
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

// key names a socket: by its cookie or, where only /proc is there, by its inode. Cookies count up from 1 (sock_gen_cookie).
func key(cookie, inode uint64) uint64 {
	if cookie != 0 {
		return cookie
	}
	return 1<<63 | inode
}

// remaining looks again: what is gone is what the kernel no longer lists as a connection.
func (l *look) remaining(ours []Socket, refused map[uint64]string) ([]Socket, error) {
	there := make(map[uint64]uint8, len(ours)) // state now; 0: not seen
	for i := range ours {
		there[key(ours[i].Cookie, ours[i].Inode)] = 0
	}
	for _, ns := range l.ins.spaces {
		if err := l.connections(ns, l.states(there)); err != nil {
			return ours, fmt.Errorf("look again: %w", err)
		}
	}
	var left []Socket
	for i := range ours {
		s := &ours[i]
		state := there[key(s.Cookie, s.Inode)]
		if state == 0 || spent(state, s.Inode) {
			continue
		}
		s.State, s.Reason = stateName(state), "still there after SOCK_DESTROY"
		if why := refused[s.Cookie]; why != "" {
			s.Reason = "SOCK_DESTROY: " + why
		}
		left = appendSocket(left, s)
	}
	return left, nil
}

// spent is a connection that holds nothing any more: TIME_WAIT, also where it calls itself FIN_WAIT2 (inet_twsk_diag_fill).
func spent(state uint8, inode uint64) bool {
	return state == tcpTimeWait || state == tcpFinWait2 && inode == 0
}

// states notes the states of those connections that are in the map.
func (l *look) states(there map[uint64]uint8) func(*namespace, *source, uint8, uint32) error {
	return func(ns *namespace, s *source, family uint8, states uint32) error {
		return l.rows(ns, s, family, states, nil, func(r *inetRow) {
			k := key(r.id.cookie(), uint64(r.inode))
			if _, ours := there[k]; ours {
				there[k] = r.state
			}
		})
	}
}
