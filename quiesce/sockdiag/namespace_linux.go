package sockdiag

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// How a source reads its queues.
const (
	byDiag   = "sock_diag"
	byRoute  = "rtnetlink"
	byProc   = "/proc/net"
	byHandle = "descriptors" // of the owner, duplicated with pidfd_getfd
	byNone   = "none"
)

// source is where one protocol's queues are read.
type source struct {
	protocol  string
	kind      string
	family    uint8
	proto     uint16
	names     [2]string // in /proc/net/protocols: v4, v6
	otherwise string    // kind where there is no diag
	files     [2]string // under /proc/net
	counted   bool      // /proc/net/protocols is believed when it says that there are none
	both      bool      // one dump gives both families
}

// protocols in the order in which they are looked at, which is that in which bytes come in: from the device up to the
// process, and between processes last. The alternatives are what spec/kernels.md found in real guest kernels.
var protocols = [...]source{
	{protocol: "qdisc", kind: byRoute, otherwise: byNone},
	{protocol: "softnet", kind: byProc, otherwise: byProc, files: [2]string{"softnet_stat"}},
	{protocol: "tcp", kind: byDiag, family: afInet, proto: protoTCP, names: [2]string{"TCP", "TCPv6"},
		otherwise: byProc, files: [2]string{"tcp", "tcp6"}, counted: true},
	{protocol: "mptcp", kind: byDiag, family: afInet, proto: protoMPTCP, names: [2]string{"MPTCP", "MPTCPv6"}, otherwise: byNone},
	{protocol: "udp", kind: byDiag, family: afInet, proto: protoUDP, names: [2]string{"UDP", "UDPv6"},
		otherwise: byProc, files: [2]string{"udp", "udp6"}, counted: true},
	{protocol: "udplite", kind: byDiag, family: afInet, proto: protoUDPLite, names: [2]string{"UDP-Lite", "UDPLITEv6"},
		otherwise: byProc, files: [2]string{"udplite", "udplite6"}, counted: true},
	{protocol: "raw", kind: byDiag, family: afInet, proto: protoRaw, names: [2]string{"RAW", "RAWv6"},
		otherwise: byProc, files: [2]string{"raw", "raw6"}, counted: true},
	{protocol: "icmp", kind: byProc, family: afInet, proto: protoICMP, names: [2]string{"PING", "PINGv6"},
		otherwise: byProc, files: [2]string{"icmp", "icmp6"}, counted: true},
	{protocol: "packet", kind: byDiag, family: afPacket, otherwise: byProc, files: [2]string{"packet"}},
	{protocol: "netlink", kind: byDiag, family: afNetlink, otherwise: byProc, files: [2]string{"netlink"}},
	{protocol: "unix", kind: byDiag, family: afUnix, otherwise: byHandle, files: [2]string{"unix"}},
}

// namespace holds what is open in one network namespace.
type namespace struct {
	inode       uint64 // 0 is the Inspector's own
	handle      int    // of the namespace; -1 for the Inspector's own
	diag, route *conn
	sources     []source
	files       map[string]int // of /proc/net, which stay bound to the namespace they were opened in
}

// openNamespace opens everything in the namespace of the calling thread, which its caller keeps to itself. Sources that
// were found out before are taken from known, if not nil: which modules there are is the same everywhere.
func openNamespace(inode uint64, known []source, withhold []string, buf []byte) (*namespace, error) {
	ns := &namespace{inode: inode, handle: -1, files: make(map[string]int), sources: slices.Clone(known)}
	var err error
	if ns.diag, err = dial(unix.NETLINK_SOCK_DIAG); err != nil {
		return nil, err
	}
	if ns.route, err = dial(unix.NETLINK_ROUTE); err != nil {
		return nil, errors.Join(err, ns.close())
	}
	if err := ns.open("protocols"); err != nil {
		return nil, errors.Join(err, ns.close())
	}
	if known == nil {
		err = ns.findSources(withhold, buf)
	}
	for i := range ns.sources {
		if s := &ns.sources[i]; err == nil && (s.kind == byProc || s.kind == byHandle) {
			err = errors.Join(ns.open(s.files[0]), ns.open(s.files[1]))
		}
	}
	if err != nil {
		return nil, errors.Join(err, ns.close())
	}
	return ns, nil
}

// open opens a file of /proc/net in the calling thread's namespace: /proc/net would be that of the first thread. A kernel
// without the protocol has no file, and nothing to look at.
func (ns *namespace) open(name string) error {
	if name == "" {
		return nil
	}
	fd, err := unix.Open("/proc/thread-self/net/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open /proc/net/%s: %w", name, err)
	}
	ns.files[name] = fd
	return nil
}

func (ns *namespace) findSources(withhold []string, buf []byte) error {
	ns.sources = slices.Clone(protocols[:])
	for i := range ns.sources {
		s := &ns.sources[i]
		switch {
		case s.kind == byProc:
		case slices.Contains(withhold, s.protocol) || slices.Contains(withhold, "all"):
			s.kind = s.otherwise
		default:
			there, err := ns.probe(s, s.family, buf)
			if err == nil && there && s.proto == protoTCP {
				s.both, err = ns.probe(s, afUnspec, buf)
			}
			if err != nil {
				return fmt.Errorf("probe %s: %w", s.protocol, err)
			}
			if !there {
				s.kind = s.otherwise
			}
		}
		if s.kind == byHandle && !canDuplicate() {
			s.kind = byNone
		}
		if s.proto == protoMPTCP && s.kind == byDiag {
			s.counted = ns.countsMPTCP(buf)
		}
	}
	return nil
}

// probe asks for sockets in no state at all, and sees whether the kernel understands.
func (ns *namespace) probe(s *source, family uint8, buf []byte) (there bool, err error) {
	c := ns.conn(s)
	err = c.dump(context.Background(), buf, s.request(c.out, family, 0, nil), func([]byte) {}, func() {})
	if absent(err) {
		return false, nil
	}
	return err == nil, err
}

// canDuplicate: pidfd_getfd is there (Linux 5.6). Whether it is allowed is seen when it is needed.
func canDuplicate() bool {
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return false
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, pidfd, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// absent: no handler for the family or the protocol (sock_diag_rcv_msg, inet_diag_lock_handler), or no such protocol at all.
func absent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) ||
		errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT)
}

// countsMPTCP finds out, with a listening socket of its own on a loopback port, whether the kernel counts MPTCP sockets that can
// hold something (it does since Linux 6.2). It matters because a dump of none costs 2 ms on a large machine: it takes a
// lock for each of 32768 slots, twice. If the socket cannot be had the dump is simply made.
func (ns *namespace) countsMPTCP(buf []byte) bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protoMPTCP)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}) != nil || unix.Listen(fd, 0) != nil {
		return false
	}
	used, err := ns.inUse(buf)
	return err == nil && used.has("MPTCP")
}

func (ns *namespace) close() error {
	var errs []error
	for _, c := range []*conn{ns.diag, ns.route} {
		if c != nil {
			errs = append(errs, c.close())
		}
	}
	for _, fd := range ns.files {
		errs = append(errs, unix.Close(fd))
	}
	if ns.handle >= 0 {
		errs = append(errs, unix.Close(ns.handle))
	}
	return errors.Join(errs...)
}

func (ns *namespace) conn(s *source) *conn {
	if s.kind == byRoute {
		return ns.route
	}
	return ns.diag
}

// families are those to ask for one after the other.
func (s *source) families() []uint8 {
	if s.both {
		return eitherFamily[:]
	}
	return families[:]
}

var (
	families     = [...]uint8{afInet, afInet6}
	eitherFamily = [...]uint8{afUnspec}
)

// used tells whether there may be sockets of a family.
func (s *source) used(u *usage, family uint8) bool {
	return !s.counted || family != afInet6 && u.has(s.names[0]) || family != afInet && u.has(s.names[1])
}

func (s *source) request(b []byte, family uint8, states uint32, filter []byte) []byte {
	switch {
	case s.protocol == "qdisc":
		return qdiscRequest(b)
	case family == afUnix:
		return unixRequest(b, states)
	case family == afPacket:
		return packetRequest(b)
	case family == afNetlink:
		return netlinkRequest(b)
	}
	return inetRequest(b, family, s.proto, states, s.proto == protoTCP, filter)
}

// usage is which protocols of /proc/net/protocols have no socket in a namespace: one bit for each name of the table above.
type usage struct{ none [len(protocols)][2]bool }

// has tells whether there may be sockets of that name. What is not known may be.
func (u *usage) has(name string) bool {
	for i := range protocols {
		if at := slices.Index(protocols[i].names[:], name); at >= 0 {
			return !u.none[i][at]
		}
	}
	return true
}

// inUse reads how many sockets there are of each protocol: one small file, which spares the walk through tables of
// hundreds of thousands of empty buckets.
func (ns *namespace) inUse(buf []byte) (u usage, err error) {
	err = ns.lines("protocols", buf, func(line []byte) {
		name, n, ok := parseProtocol(line)
		if !ok || n > 0 {
			return
		}
		for i := range protocols {
			for at := range protocols[i].names {
				u.none[i][at] = u.none[i][at] || string(name) == protocols[i].names[at]
			}
		}
	})
	return u, err
}

// lines reads a file of /proc/net from its beginning. A file that is not there has no lines.
func (ns *namespace) lines(name string, buf []byte, each func(line []byte)) error {
	fd, ok := ns.files[name]
	if !ok {
		return nil
	}
	if _, err := unix.Seek(fd, 0, io.SeekStart); err != nil {
		return fmt.Errorf("seek /proc/net/%s: %w", name, err)
	}
	for have := 0; ; {
		n, err := unix.Read(fd, buf[have:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("read /proc/net/%s: %w", name, err)
		}
		if n == 0 {
			return nil
		}
		rest := eachLine(buf[:have+n], each)
		if have = copy(buf, rest); have == len(buf) {
			return fmt.Errorf("read /proc/net/%s: line of %d bytes", name, have)
		}
	}
}

// addresses lists the namespace's own; with a name, only that interface's.
func (ns *namespace) addresses(ctx context.Context, buf []byte, name string) ([]netip.Addr, error) {
	var out []netip.Addr
	request := seal(append(newRequest(nil, unix.RTM_GETADDR, flagDump), make([]byte, 8)...))
	each := func(b []byte) {
		if a, index, ok := parseAddress(b); ok && (name == "" || interfaceName(ns.route.fd, index) == name) {
			out = append(out, a)
		}
	}
	err := ns.route.dump(ctx, buf, request, each, func() { out = out[:0] })
	return out, err
}

// parseAddress reads struct ifaddrmsg, of 8 bytes, the interface's index at the end, and IFA_ADDRESS or better
// IFA_LOCAL: on a point-to-point link the first is the peer's.
func parseAddress(b []byte) (out netip.Addr, index int32, ok bool) {
	if len(b) < 8 {
		return out, 0, false
	}
	index = int32(binary.NativeEndian.Uint32(b[4:]))
	for attrs := b[8:]; ; {
		kind, value, rest, more := nextAttr(attrs)
		if !more {
			return out, index, out.IsValid()
		}
		if kind == unix.IFA_LOCAL || kind == unix.IFA_ADDRESS && !out.IsValid() {
			out, _ = netip.AddrFromSlice(value)
		}
		attrs = rest
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
	return strings.TrimRight(ifr.Name(), "\x00")
}
