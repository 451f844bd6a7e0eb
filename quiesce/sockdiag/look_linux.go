package sockdiag

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// source is where one protocol's queues are read.
type source struct {
	protocol string
	kind     string // diag, rtnetlink, /proc, none
	family   uint8
	proto    uint16
}

// protocols in the order in which they are looked at, which is the order in which bytes come in and go out: from the
// device up to the process, and between processes last.
var protocols = [...]source{
	{protocol: "qdisc", kind: "rtnetlink"},
	{protocol: "tcp", kind: "diag", family: afInet, proto: protoTCP},
	{protocol: "mptcp", kind: "diag", family: afInet, proto: protoMPTCP},
	{protocol: "udp", kind: "diag", family: afInet, proto: protoUDP},
	{protocol: "udplite", kind: "diag", family: afInet, proto: protoUDPLite},
	{protocol: "raw", kind: "diag", family: afInet, proto: protoRaw},
	{protocol: "packet", kind: "diag", family: afPacket},
	{protocol: "netlink", kind: "diag", family: afNetlink},
	{protocol: "unix", kind: "diag", family: afUnix},
}

// namespace holds what is open in one network namespace.
type namespace struct {
	inode       uint64 // 0 is the Inspector's own
	diag, route *conn
	sources     []source
}

func openNamespace(inode uint64, withhold []string, buf []byte) (*namespace, error) {
	ns := &namespace{inode: inode, sources: slices.Clone(protocols[:])}
	var err error
	if ns.diag, err = dial(unix.NETLINK_SOCK_DIAG); err != nil {
		return nil, err
	}
	if ns.route, err = dial(unix.NETLINK_ROUTE); err != nil {
		ns.diag.close()
		return nil, err
	}
	for i := range ns.sources {
		s := &ns.sources[i]
		if slices.Contains(withhold, s.protocol) || slices.Contains(withhold, "all") {
			s.kind = "none"
		} else if err := ns.probe(s, buf); err != nil {
			ns.close()
			return nil, fmt.Errorf("probe %s: %w", s.protocol, err)
		}
	}
	return ns, nil
}

func (ns *namespace) close() error { return errors.Join(ns.diag.close(), ns.route.close()) }

// probe asks for sockets in no state at all, and sees whether the kernel understands.
func (ns *namespace) probe(s *source, buf []byte) error {
	request := s.request(s.family, 0, nil)
	err := ns.conn(s).dump(context.Background(), buf, request, func([]byte) {}, func() {})
	if absent(err) {
		s.kind = "none"
		return nil
	}
	return err
}

// absent: no handler for the family or the protocol (sock_diag_rcv_msg, inet_diag_lock_handler), or no such protocol at all.
func absent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) ||
		errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT)
}

func (ns *namespace) conn(s *source) *conn {
	if s.kind == "rtnetlink" {
		return ns.route
	}
	return ns.diag
}

func (s *source) request(family uint8, states uint32, filter []byte) []byte {
	switch {
	case s.protocol == "qdisc":
		return qdiscRequest()
	case family == afUnix:
		return unixRequest(states)
	case family == afPacket:
		return packetRequest()
	case family == afNetlink:
		return netlinkRequest()
	}
	return inetRequest(family, s.proto, states, s.wantsMemory(), filter)
}

func (s *source) wantsMemory() bool { return s.proto == protoTCP }

// look is one pass over the sockets.
type look struct {
	ins   *Inspector
	ctx   context.Context
	found []Socket
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
	for i := range ns.sources {
		s := &ns.sources[i]
		if s.kind == "none" {
			continue
		}
		if err := l.source(ns, s); err != nil {
			return fmt.Errorf("dump %s: %w", s.protocol, err)
		}
	}
	return nil
}

func (l *look) source(ns *namespace, s *source) error {
	switch s.family {
	case afInet:
		return l.inet(ns, s)
	case afUnix:
		return l.dump(ns, s, afUnix, everyState, nil, l.unix(ns))
	case afPacket:
		return l.dump(ns, s, afPacket, 0, nil, l.memory(ns, s, parsePacket))
	case afNetlink:
		return l.dump(ns, s, afNetlink, 0, nil, l.memory(ns, s, parseNetlink))
	}
	return l.dump(ns, s, 0, 0, nil, l.qdisc(ns))
}

func (l *look) dump(ns *namespace, s *source, family uint8, states uint32, filter []byte, each func([]byte)) error {
	mark := len(l.found)
	restart := func() { l.found = l.found[:mark] }
	return ns.conn(s).dump(l.ctx, l.ins.buf, s.request(family, states, filter), each, restart)
}

func (l *look) inet(ns *namespace, s *source) error {
	states, rule := busyStates, tcpVerdict
	if s.proto != protoTCP && s.proto != protoMPTCP {
		states, rule = dgramStates, datagramVerdict
	}
	var row inetRow
	each := func(b []byte) {
		if !parseInet(b, &row) {
			return
		}
		if v := rule(&row); v.reason != "" {
			l.found = append(l.found, inetSocket(ns, s, &row, v))
		}
	}
	for _, family := range [...]uint8{afInet, afInet6} {
		if err := l.dump(ns, s, family, states, nil, each); err != nil {
			return err
		}
	}
	return nil
}

func inetSocket(ns *namespace, s *source, r *inetRow, v verdict) Socket {
	out := Socket{
		Netns: ns.inode, Protocol: s.protocol, State: stateName(r.state), Local: r.id.local(r.family).String(),
		Cookie: r.id.cookie(), Inode: uint64(r.inode), Unread: v.unread, Unsent: v.unsent, Queued: v.queued, Reason: v.reason,
		family: r.family, proto: s.proto, state: r.state, id: [sockidLen]byte(r.id),
	}
	if remote := r.id.remote(r.family); remote.Port() != 0 || !remote.Addr().IsUnspecified() {
		out.Remote = remote.String()
	}
	return out
}

func (l *look) unix(ns *namespace) func([]byte) {
	var row unixRow
	return func(b []byte) {
		if !parseUnix(b, &row) {
			return
		}
		v := unixVerdict(&row)
		if v.reason == "" {
			return
		}
		s := Socket{
			Netns: ns.inode, Protocol: "unix", Type: typeName(row.kind), State: stateName(row.state), Local: unixName(row.name),
			Cookie: row.cookie, Inode: uint64(row.inode), Unread: v.unread, Unsent: v.unsent, Queued: v.queued, Reason: v.reason,
			peer: uint64(row.peer), family: afUnix, state: row.state,
		}
		if row.peer != 0 {
			s.Remote = fmt.Sprintf("inode %d", row.peer)
		}
		l.found = append(l.found, s)
	}
}

// memory serves packet and netlink. Netlink sockets of the kernel itself (port 0) have no reader and are passed over.
func (l *look) memory(ns *namespace, s *source, parse func([]byte, *memoryRow) bool) func([]byte) {
	var row memoryRow
	return func(b []byte) {
		if !parse(b, &row) || s.family == afNetlink && row.port == 0 {
			return
		}
		v := memoryVerdict(row.memory)
		if v.reason == "" || uint64(row.inode) == ns.diag.inode || uint64(row.inode) == ns.route.inode {
			return
		}
		out := Socket{
			Netns: ns.inode, Protocol: s.protocol, Type: typeName(row.kind), Cookie: row.cookie, Inode: uint64(row.inode),
			Unread: v.unread, Unsent: v.unsent, Reason: v.reason, family: s.family,
		}
		if s.family == afNetlink {
			out.Local = fmt.Sprintf("protocol %d port %d", row.protocol, row.port)
		} else {
			out.Local = fmt.Sprintf("ethertype %#04x", row.number)
		}
		l.found = append(l.found, out)
	}
}

func (l *look) qdisc(ns *namespace) func([]byte) {
	var row qdiscRow
	return func(b []byte) {
		if !parseQdisc(b, &row) {
			return
		}
		v := qdiscVerdict(&row)
		if v.reason == "" {
			return
		}
		l.found = append(l.found, Socket{
			Netns: ns.inode, Protocol: "qdisc", Type: unixName(row.kind), Interface: interfaceName(ns.route.fd, row.index),
			Unsent: v.unsent, Queued: v.queued, Reason: v.reason,
		})
	}
}

// interfaceName asks through any socket of the namespace; a name that is gone is shown as its number.
func interfaceName(fd int, index int32) string {
	ifr, err := unix.NewIfreq("x")
	if err != nil {
		return fmt.Sprintf("#%d", index)
	}
	ifr.SetUint32(uint32(index))
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFNAME, ifr); err != nil {
		return fmt.Sprintf("#%d", index)
	}
	return ifr.Name()
}

// inherited keeps the connections that leave the machine.
func (l *look) inherited(ns *namespace) error {
	for i := range ns.sources {
		s := &ns.sources[i]
		states := inheritStates
		switch s.protocol {
		case "tcp":
		case "udp", "udplite":
			states = 1 << tcpEstablished
		default:
			continue
		}
		if s.kind == "none" {
			continue
		}
		for _, family := range [...]uint8{afInet, afInet6} {
			if err := l.outside(ns, s, family, states); err != nil {
				return fmt.Errorf("dump %s: %w", s.protocol, err)
			}
		}
	}
	return nil
}

func (l *look) outside(ns *namespace, s *source, family uint8, states uint32) error {
	var row inetRow
	mark := len(l.found)
	err := l.dump(ns, s, family, states, notLoopback(), func(b []byte) {
		if parseInet(b, &row) && leaves(&row) {
			v := verdict{reason: "inherited connection", unread: uint64(row.rqueue), unsent: uint64(row.wqueue)}
			l.found = append(l.found, inetSocket(ns, s, &row, v))
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
	toSelf := func(s Socket) bool {
		id := sockid(s.id[:])
		return id.local(s.family).Addr() == id.remote(s.family).Addr()
	}
	if !slices.ContainsFunc(l.found[from:], toSelf) {
		return nil
	}
	own, err := ns.addresses(l.ctx, l.ins.buf)
	if err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	kept := slices.DeleteFunc(l.found[from:], func(s Socket) bool {
		return toSelf(s) && slices.Contains(own, sockid(s.id[:]).remote(s.family).Addr().Unmap())
	})
	l.found = l.found[:from+len(kept)]
	return nil
}

// addresses lists the namespace's own: struct ifaddrmsg is 8 bytes, IFA_ADDRESS is 1 and IFA_LOCAL 2 (on a
// point-to-point link the first is the peer's).
func (ns *namespace) addresses(ctx context.Context, buf []byte) ([]netip.Addr, error) {
	var out []netip.Addr
	request := seal(append(newRequest(unix.RTM_GETADDR, flagDump), make([]byte, 8)...))
	each := func(b []byte) {
		if a, ok := parseAddress(b); ok {
			out = append(out, a)
		}
	}
	err := ns.route.dump(ctx, buf, request, each, func() { out = out[:0] })
	return out, err
}

func parseAddress(b []byte) (out netip.Addr, ok bool) {
	if len(b) < 8 {
		return out, false
	}
	for attrs := b[8:]; ; {
		kind, value, rest, more := nextAttr(attrs)
		if !more {
			return out, out.IsValid()
		}
		if kind == unix.IFA_LOCAL || kind == unix.IFA_ADDRESS && !out.IsValid() {
			out, _ = netip.AddrFromSlice(value)
		}
		attrs = rest
	}
}
