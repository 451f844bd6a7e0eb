package sockdiag

import (
	"context"

	"rouse/internal/fmt"
)

// look is one pass over the sockets.
type look struct {
	ins    *Inspector
	ctx    context.Context
	found  []Socket
	id     [sockidLen]byte // addresses of the /proc line being read
	walker walker

	// The row being read. They stand here for rows are handed to functions, and would be allocated for each dump.
	inetRow   inetRow
	unixRow   unixRow
	memoryRow memoryRow
}

// busyStates are those in which a socket can hold something: not TIME_WAIT. Those of UDP are ESTABLISHED and CLOSE.
const (
	busyStates    = uint32(0xffff) &^ (1<<tcpTimeWait | 1<<tcpClose | 1<<13 /* TCP_BOUND_INACTIVE, Linux 6.8 */)
	dgramStates   = uint32(1<<tcpEstablished | 1<<tcpClose)
	inheritStates = busyStates&^(1<<tcpListen) | 1<<tcpTimeWait
	everyState    = ^uint32(0)
)

// all looks at every source of a namespace and keeps what is busy.
func (l *look) all(ns *namespace) error {
	used, err := ns.inUse(l.ins.buf)
	if err != nil {
		return err
	}
	for i := range ns.sources {
		s := &ns.sources[i]
		if s.kind == byNone {
			continue
		}
		if err := l.source(ns, s, &used); err != nil {
			return fmt.Errorf("%s by %s: %w", s.protocol, s.kind, err)
		}
	}
	return nil
}

func (l *look) source(ns *namespace, s *source, used *usage) error {
	switch s.family {
	case afInet:
		return l.inet(ns, s, used)
	case afUnix:
		return l.unix(ns, s)
	case afPacket:
		return l.memory(ns, s, 0, parsePacket, parseProcPacket)
	case afNetlink:
		return l.memory(ns, s, 0, parseNetlink, parseProcNetlink)
	}
	if s.protocol == "softnet" {
		return l.softnet(ns, s)
	}
	return l.dump(ns, s, 0, 0, nil, l.qdisc(ns))
}

func (l *look) dump(ns *namespace, s *source, family uint8, states uint32, filter []byte, each func([]byte)) error {
	mark := len(l.found)
	restart := func() { l.found = l.found[:mark] }
	c := ns.conn(s)
	return c.dump(l.ctx, l.ins.buf, s.request(c.out, family, states, filter), each, restart)
}

// inet looks at one protocol of both families, those that have a socket at all.
func (l *look) inet(ns *namespace, s *source, used *usage) error {
	states, rule := busyStates, tcpVerdict
	if s.proto != protoTCP && s.proto != protoMPTCP {
		states, rule = dgramStates, datagramVerdict
	}
	each := func(r *inetRow) {
		v := rule(r)
		if v.reason == whyConnect && v.unsent == 0 && l.ins.options.IgnoreConnecting {
			return
		}
		if v.reason != "" {
			l.addInet(ns, s, r, v)
		}
	}
	for _, family := range s.families() {
		if !s.used(used, family) {
			continue
		}
		if err := l.rows(ns, s, family, states, nil, each); err != nil {
			return err
		}
	}
	return nil
}

// rows hands out the sockets of one protocol and family that are in one of the states, from wherever they are read.
func (l *look) rows(ns *namespace, s *source, family uint8, states uint32, filter []byte, each func(*inetRow)) error {
	row := &l.inetRow
	if s.kind == byDiag {
		return l.dump(ns, s, family, states, filter, func(b []byte) {
			if parseInet(b, row) {
				each(row)
			}
		})
	}
	file := s.files[0]
	if family == afInet6 {
		file = s.files[1]
	}
	if err := l.ctx.Err(); err != nil {
		return err
	}
	return ns.lines(file, l.ins.buf, func(line []byte) {
		if parseProcInet(line, &l.id, row) && row.state < 32 && states>>row.state&1 != 0 {
			each(row)
		}
	})
}

// add appends a socket that holds something. What it returns may be filled in until the next one is added.
func (l *look) add(ns *namespace, protocol string, v verdict) *Socket {
	l.found = append(l.found, Socket{})
	s := &l.found[len(l.found)-1]
	s.Netns, s.Protocol, s.Reason = ns.inode, protocol, v.reason
	s.Unread, s.Unsent, s.Queued = v.unread, v.unsent, v.queued
	return s
}

func (l *look) addInet(ns *namespace, s *source, r *inetRow, v verdict) {
	out := l.add(ns, s.protocol, v)
	out.family, out.proto = r.family, s.proto
	out.setState(r.state)
	copy(out.id[:], r.id)
	out.Cookie, out.Inode = r.id.cookie(), uint64(r.inode)
	out.Local = r.id.local(r.family).String()
	if remote := r.id.remote(r.family); remote.Port() != 0 || !remote.Addr().IsUnspecified() {
		out.Remote = remote.String()
	}
}

func (s *Socket) setState(state uint8) { s.state, s.State = state, stateName(state) }

func (l *look) unix(ns *namespace, s *source) error {
	if s.kind == byHandle {
		return l.unixHandles(ns)
	}
	row := &l.unixRow
	return l.dump(ns, s, afUnix, everyState, nil, func(b []byte) {
		if !parseUnix(b, row) {
			return
		}
		if v := unixVerdict(row); v.reason != "" {
			l.addUnix(ns, row, v)
		}
	})
}

func (l *look) addUnix(ns *namespace, r *unixRow, v verdict) *Socket {
	s := l.add(ns, "unix", v)
	s.family, s.peer = afUnix, uint64(r.peer)
	s.setState(r.state)
	s.Type, s.Local = typeName(r.kind), unixName(r.name)
	s.Cookie, s.Inode = r.cookie, uint64(r.inode)
	if r.peer != 0 {
		s.Remote = fmt.Sprintf("inode %d", r.peer)
	}
	return s
}

// memory serves packet and netlink. Netlink sockets of the kernel itself (port 0) have no reader and are passed over.
func (l *look) memory(ns *namespace, s *source, states uint32, parse, parseLine func([]byte, *memoryRow) bool) error {
	row := &l.memoryRow
	each := func(b []byte) {
		if !parse(b, row) || s.family == afNetlink && row.port == 0 {
			return
		}
		if v := memoryVerdict(row.memory); v.reason != "" && !l.ins.own(uint64(row.inode)) {
			l.addMemory(ns, s, row, v)
		}
	}
	if s.kind == byDiag {
		return l.dump(ns, s, s.family, states, nil, each)
	}
	parse = parseLine
	return ns.lines(s.files[0], l.ins.buf, each)
}

func (l *look) addMemory(ns *namespace, s *source, r *memoryRow, v verdict) {
	out := l.add(ns, s.protocol, v)
	out.family, out.Type = s.family, typeName(r.kind)
	out.Cookie, out.Inode = r.cookie, uint64(r.inode)
	if s.family == afNetlink {
		out.Local = fmt.Sprintf("protocol %d port %d", r.protocol, r.port)
	} else {
		out.Local = fmt.Sprintf("ethertype %#04x", r.number)
	}
}

func (l *look) qdisc(ns *namespace) func([]byte) {
	var row qdiscRow
	return func(b []byte) {
		if !parseQdisc(b, &row) {
			return
		}
		if v := qdiscVerdict(&row); v.reason != "" {
			s := l.add(ns, "qdisc", v)
			s.Type, s.Interface = unixName(row.kind), interfaceName(ns.route.fd, row.index)
		}
	}
}

// softnet looks at the processors' backlogs, which are the machine's: one namespace is enough.
func (l *look) softnet(ns *namespace, s *source) error {
	if ns.inode != 0 {
		return nil
	}
	return ns.lines(s.files[0], l.ins.buf, func(line []byte) {
		if cpu, n, ok := parseSoftnet(line); ok && n > 0 {
			l.add(ns, "softnet", verdict{reason: whySoftnet, queued: n}).Local = fmt.Sprintf("processor %d", cpu)
		}
	})
}
