package sockdiag

import (
	"context"
	"slices"

	"rouse/internal/fmt"
)

// Inherited returns the connections whose far end is outside this machine: TCP in every state but LISTEN, TIME_WAIT and
// half-open ones among them, and connected UDP. A clone must destroy them before it lets a packet out. Unconnected
// UDP sockets (QUIC and WireGuard servers) cannot be told from idle ones and are not listed: those services must
// adjust by themselves. Owners are not looked up.
//
// A connection counts as local if its far end is a loopback address, or its own address that this machine has now:
// after a change of identity the former own address is a stranger's.
func (ins *Inspector) Inherited(ctx context.Context) ([]Socket, error) {
	ins.mu.Lock()
	defer ins.mu.Unlock()
	if err := ins.refresh(); err != nil {
		return nil, fmt.Errorf("sockdiag: %w", err)
	}
	l := look{ins: ins, ctx: ctx}
	for _, ns := range ins.spaces {
		if err := l.connections(ns, l.outside); err != nil {
			return nil, fmt.Errorf("look at connections: %w", err)
		}
	}
	return l.found, nil
}

// connections runs visit for each protocol and family, or both at once, that has connections, with the states they can be in. What
// /proc/net/protocols counts is not used here: it leaves out TIME_WAIT, and a step of safety asks the tables themselves.
func (l *look) connections(ns *namespace, visit func(*namespace, *source, uint8, uint32) error) error {
	for i := range ns.sources {
		s := &ns.sources[i]
		states := inheritStates
		switch s.proto {
		case protoTCP:
		case protoUDP, protoUDPLite:
			states = 1 << tcpEstablished
		default:
			continue
		}
		for _, family := range s.families() {
			if err := visit(ns, s, family, states); err != nil {
				return fmt.Errorf("%s by %s: %w", s.protocol, s.kind, err)
			}
		}
	}
	return nil
}

func (l *look) outside(ns *namespace, s *source, family uint8, states uint32) error {
	mark := len(l.found)
	err := l.rows(ns, s, family, states, l.ins.filter, func(r *inetRow) {
		if leaves(r) {
			v := verdict{reason: whyInherited, unread: uint64(r.rqueue), unsent: uint64(r.wqueue)}
			l.addInet(ns, s, r, v)
		}
	})
	if err != nil {
		return err
	}
	return l.dropSelf(ns, mark)
}

// leaves repeats the kernel's filter: a filter is a matter of speed, and this one of safety.
func leaves(r *inetRow) bool {
	a := r.id.remote(r.family).Addr().Unmap()
	return !a.IsLoopback() && !a.IsUnspecified()
}

// dropSelf takes out connections of an own address to itself. Only if there are any are the addresses asked for, and
// only afterwards, for the receive buffer serves one dump at a time.
func (l *look) dropSelf(ns *namespace, from int) error {
	toSelf := func(s *Socket) bool {
		id := sockid(s.id[:])
		return id.local(s.family).Addr() == id.remote(s.family).Addr()
	}
	any := false
	for i := from; i < len(l.found); i++ {
		any = any || toSelf(&l.found[i])
	}
	if !any {
		return nil
	}
	own, err := ns.addresses(l.ctx, l.ins.buf, "")
	if err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	kept := leaveOut(l.found[from:], func(s *Socket) bool {
		return toSelf(s) && slices.Contains(own, sockid(s.id[:]).remote(s.family).Addr().Unmap())
	})
	l.found = l.found[:from+len(kept)]
	return nil
}
