package firewall

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// tc is the third rung: on every link a clsact qdisc with one BPF classifier
// for each direction. It sees all that passes a link, ARP and packet sockets
// too. Links come one after another, but nothing is shut until the word in the
// map says so, for all of them at once.
//
// The kernel stops a link for a moment and empties its queue when a clsact
// qdisc comes or goes (dev_deactivate in qdisc_graft, net/sched/sch_api.c, 6.18).
// Beside nftables that is no loss: the gate is shut at both times, and what was
// queued before it shut does not leave afterwards.
type tc struct {
	sock   *netlinkSocket
	listen *netlinkSocket // for Guard; deaf until then
	valve  *valve
	made   map[int32]bool // links whose clsact qdisc is ours
	known  map[int32]bool // links that have our filters
	probe  bool           // take loopback for a link: a throw-away namespace has no other
}

// Our filters' identity on a link: the first in order, under a handle of ours.
// The name tells whoever removes them, another process perhaps, whether the
// qdisc they are in came with them.
const (
	tcPriority  = 1
	tcHandle    = 0x726f7573 // "rous"
	tcName      = "rouse"
	tcNameQdisc = "rouse+clsact"
)

// include/uapi/linux/pkt_sched.h, rtnetlink.h and pkt_cls.h.
const (
	clsactParent  = 0xfffffff1
	clsactHandle  = 0xffff0000
	clsactIngress = 0xfffffff2
	clsactEgress  = 0xfffffff3
	tcaKind       = 1
	tcaOptions    = 2
	tcaBPFFD      = 6
	tcaBPFName    = 7
	tcaBPFFlags   = 8
	tcaBPFID      = 11
	directAction  = 1 // TCA_BPF_FLAG_ACT_DIRECT
)

var tcParents = [2]uint32{clsactIngress, clsactEgress}

func newTC(allow []Allow) (*tc, error) {
	sock, err := openNetlink(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, describe(err, "open route socket")
	}
	listen, err := openNetlink(unix.NETLINK_ROUTE)
	if err != nil {
		sock.Close()
		return nil, describe(err, "open route socket")
	}
	v, err := newValve(true, allow)
	if err != nil {
		sock.Close()
		listen.Close()
		return nil, err
	}
	return &tc{sock: sock, listen: listen, valve: v, made: map[int32]bool{}, known: map[int32]bool{}}, nil
}

// openTC tries all of it on the loopback of a throw-away namespace: a guest's
// kernel may have no kind of link that could be made for it (dummy, veth, tun).
func openTC(o Options) (mechanism, error) {
	err := inThrowaway(func() error {
		m, err := newTC(nil)
		if err != nil {
			return err
		}
		defer m.Close()
		m.probe = true
		if err := try(m, Shut, Hold); err != nil {
			return &UnsupportedError{"clsact with BPF classifiers", "CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF", err}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return newTC(o.Allow)
}

// link is one interface that traffic leaves the namespace by.
type link struct {
	index int32
	name  string
}

// links lists all but loopback.
func (c *tc) links() ([]link, error) {
	for range readTries {
		links, err := c.listLinks()
		if !errors.Is(err, errTorn) {
			return links, describe(err, "list links")
		}
	}
	return nil, errTorn
}

func (c *tc) listLinks() ([]link, error) {
	e := c.sock.question()
	e.message(unix.RTM_GETLINK, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, c.sock.nextSeq(), make([]byte, unix.SizeofIfInfomsg))
	var links []link
	err := c.sock.ask(e, func(m message) error {
		if m.flags&unix.NLM_F_DUMP_INTR != 0 {
			return errTorn
		}
		if l, loopback, ok := linkOf(m); ok && loopback == c.probe {
			links = append(links, l)
		}
		return nil
	})
	return links, err
}

// linkOf reads struct ifinfomsg.
func linkOf(m message) (l link, loopback, ok bool) {
	if m.typ != unix.RTM_NEWLINK || len(m.data) < unix.SizeofIfInfomsg {
		return l, false, false
	}
	l.index = int32(binary.NativeEndian.Uint32(m.data[4:]))
	l.name = cString(attribute(m.data[unix.SizeofIfInfomsg:], unix.IFLA_IFNAME))
	return l, binary.NativeEndian.Uint16(m.data[2:]) == unix.ARPHRD_LOOPBACK, true
}

// tcHead is struct tcmsg.
func tcHead(index int32, handle, parent, info uint32) []byte {
	b := make([]byte, 4, 20)
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = binary.NativeEndian.AppendUint32(b, handle)
	b = binary.NativeEndian.AppendUint32(b, parent)
	return binary.NativeEndian.AppendUint32(b, info)
}

// filterHead names our filter of one direction on a link.
func filterHead(index int32, direction int) []byte {
	return tcHead(index, tcHandle, tcParents[direction], tcPriority<<16|uint32(htons(unix.ETH_P_ALL)))
}

func htons(v uint16) uint16 { return binary.NativeEndian.Uint16([]byte{byte(v >> 8), byte(v)}) }

// set puts filters on every link while the word says open, then turns it. If
// another gate's filters are in the way, the word is turned first: they are
// replaced one by one, and none may be replaced by an open one.
func (c *tc) set(s State) error {
	links, err := c.links()
	if err != nil {
		return err
	}
	if s == Open {
		return errors.Join(c.valve.set(Open), c.remove(links))
	}
	foreign := false
	for _, l := range links {
		f, err := c.filters(l)
		if err != nil {
			return err
		}
		foreign = foreign || c.foreign(f)
	}
	if foreign {
		if err := c.valve.set(s); err != nil {
			return err
		}
	}
	for _, l := range links {
		if err := c.attach(l); err != nil {
			return describe(err, "link %s", l.name)
		}
	}
	return c.valve.set(s)
}

// attach adds or replaces the filters of a link; one that is gone meanwhile is
// no loss. All of it goes in one call: a process that is killed leaves no qdisc
// of which nobody knows that it is ours.
func (c *tc) attach(l link) error {
	f, err := c.filters(l)
	c.known[l.index] = true
	if err != nil || c.own(f) {
		return err
	}
	e := &encoder{}
	if !c.hasQdisc(l) {
		c.made[l.index] = true
		c.request(e, unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, qdiscHead(l), "clsact")
	}
	name := tcName
	if c.made[l.index] {
		name = tcNameQdisc
	}
	for i := range tcParents {
		c.request(e, unix.RTM_NEWTFILTER, unix.NLM_F_CREATE, filterHead(l.index, i), "bpf")
		e.nest(tcaOptions, func() {
			e.u32(tcaBPFFD, uint32(c.valve.progs[i].fd))
			e.str(tcaBPFName, name)
			e.u32(tcaBPFFlags, directAction)
		})
	}
	err = c.sock.transact(e.finish(), c.sock.seq)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return describe(err, "add filters")
}

// request begins a message of struct tcmsg and a kind.
func (c *tc) request(e *encoder, typ, flags uint16, head []byte, kind string) {
	e.message(typ, unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags, c.sock.nextSeq(), head)
	e.str(tcaKind, kind)
}

func qdiscHead(l link) []byte { return tcHead(l.index, clsactHandle, clsactParent, 0) }

// hasQdisc says whether a link has a clsact (or ingress) qdisc, whoever's.
func (c *tc) hasQdisc(l link) bool {
	e := c.sock.question()
	// Without NLM_F_ECHO the answer goes to the multicast group only.
	e.message(unix.RTM_GETQDISC, unix.NLM_F_REQUEST|unix.NLM_F_ECHO, c.sock.nextSeq(), tcHead(l.index, 0, clsactParent, 0))
	has := false // a link that had one once answers without an error, and with nothing
	_ = c.sock.ask(e, func(m message) error {
		has = m.typ == unix.RTM_NEWQDISC
		return nil
	})
	return has
}

// remove takes our filters off every link, and the qdisc where it was ours and
// nobody else has come to use it: for each link in one call.
func (c *tc) remove(links []link) error {
	var failed error
	for _, l := range links {
		failed = errors.Join(failed, describe(c.removeFrom(l), "link %s: delete filters", l.name))
	}
	clear(c.made)
	clear(c.known)
	return failed
}

func (c *tc) removeFrom(l link) error {
	f, err := c.filters(l)
	if err != nil {
		return err
	}
	e := &encoder{}
	for i := range tcParents {
		if f[i] != nil {
			c.request(e, unix.RTM_DELTFILTER, 0, filterHead(l.index, i), "bpf")
		}
	}
	if c.made[l.index] {
		used, err := c.qdiscUsed(l)
		if err != nil {
			return err
		}
		if !used {
			c.request(e, unix.RTM_DELQDISC, 0, qdiscHead(l), "clsact")
		}
	}
	if e.b == nil {
		return nil
	}
	return gone(c.sock.transact(e.finish(), c.sock.seq))
}

// qdiscUsed says whether filters that are not ours are in either direction.
func (c *tc) qdiscUsed(l link) (bool, error) {
	used := false
	for _, parent := range tcParents {
		e := c.sock.question()
		flags := uint16(unix.NLM_F_REQUEST | unix.NLM_F_DUMP)
		e.message(unix.RTM_GETTFILTER, flags, c.sock.nextSeq(), tcHead(l.index, 0, parent, 0))
		err := c.sock.ask(e, func(m message) error {
			used = used || m.typ == unix.RTM_NEWTFILTER && !ownFilter(m.data)
			return nil
		})
		if err != nil {
			return false, gone(err)
		}
	}
	return used, nil
}

// ownFilter looks at struct tcmsg. A dump names each priority first, with handle 0.
func ownFilter(b []byte) bool {
	if len(b) < 20 {
		return false
	}
	handle, info := binary.NativeEndian.Uint32(b[8:]), binary.NativeEndian.Uint32(b[16:])
	return info>>16 == tcPriority && (handle == 0 || handle == tcHandle)
}

// gone is nil for the errors that say that there is nothing to delete.
func gone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// filters gives the programs under our handle on a link; nil where none is.
func (c *tc) filters(l link) ([2]*programInfo, error) {
	var found [2]*programInfo
	for i := range tcParents {
		id, err := c.filterID(l, i)
		if err != nil {
			return found, describe(gone(err), "link %s: read filter", l.name)
		}
		if id == c.valve.progs[i].id {
			found[i] = &programInfo{id: id, tag: c.valve.progs[i].tag, maps: []uint32{c.valve.mapID}}
			continue
		}
		info, err := infoByID(id)
		if err != nil {
			return found, describe(err, "link %s: read filter", l.name)
		}
		found[i] = &info
	}
	return found, nil
}

func (c *tc) filterID(l link, direction int) (uint32, error) {
	e := c.sock.question()
	e.message(unix.RTM_GETTFILTER, unix.NLM_F_REQUEST, c.sock.nextSeq(), filterHead(l.index, direction))
	e.str(tcaKind, "bpf")
	id := uint32(0)
	err := c.sock.ask(e, func(m message) error {
		if m.typ != unix.RTM_NEWTFILTER || len(m.data) < 20 {
			return nil
		}
		options := attribute(m.data[20:], tcaOptions)
		flags := attribute(options, tcaBPFFlags)
		if b := attribute(options, tcaBPFID); len(b) == 4 && len(flags) == 4 && flags[0]|flags[3] == directAction {
			id = binary.NativeEndian.Uint32(b)
		}
		if cString(attribute(options, tcaBPFName)) == tcNameQdisc {
			c.made[l.index] = true
		}
		return nil
	})
	if err == nil && id == 0 {
		err = unix.ENOENT
	}
	return id, err
}

func (c *tc) own(f [2]*programInfo) bool {
	return f[0] != nil && f[1] != nil && f[0].id == c.valve.progs[0].id && f[1].id == c.valve.progs[1].id
}

func (c *tc) foreign(f [2]*programInfo) bool {
	for i := range f {
		if f[i] != nil && f[i].id != c.valve.progs[i].id {
			return true
		}
	}
	return false
}

// errNoLinks comes with the state that links would have if there were any.
var errNoLinks = errors.New("no link but loopback")

// state is what all links agree on.
func (c *tc) state() (State, error) {
	links, err := c.links()
	if err != nil {
		return Open, err
	}
	if len(links) == 0 {
		s, err := loadState(c.valve.mapFD)
		return s, errors.Join(err, errNoLinks)
	}
	var in, out []programInfo
	bare := ""
	for _, l := range links {
		f, err := c.filters(l)
		if err != nil {
			return Open, err
		}
		if f[0] == nil || f[1] == nil {
			bare = l.name
		}
		in, out = appendNew(in, f[0]), appendNew(out, f[1])
	}
	if bare != "" && len(in)+len(out) > 0 {
		return Open, fmt.Errorf("%w: link %s has no filter", ErrTampered, bare)
	}
	return valveState(c.valve, in, out)
}

// appendNew collects different programs.
func appendNew(list []programInfo, p *programInfo) []programInfo {
	if p == nil {
		return list
	}
	for _, q := range list {
		if q.id == p.id {
			return list
		}
	}
	return append(list, *p)
}

func (c *tc) coverage() Coverage {
	return Coverage{IPv4: true, IPv6: true, ARP: true, ND: true, Multicast: true, Forwarded: true, Bridged: true, PacketSockets: true,
		HoldTCP: "SYN without ACK, both directions"}
}

// Close leaves attached filters attached.
func (c *tc) Close() error {
	return errors.Join(c.valve.Close(), c.sock.Close(), c.listen.Close())
}
