package rootfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/guard"
	"rouse/rootfs/rtnl"
)

// Leases gets and keeps what DHCP servers and routers lend: addresses, routes, name servers.
//
// The easy case: [NewLeases], [Leases.Start], [Leases.Await] at boot; it renews by itself then. The race is with a snapshot: an
// exchange that is cut in two by one would go on in every copy. So [Leases.Hold] ends what is on its way and lets
// nothing begin until [Leases.Release], after which every lease is asked for again at once, since nobody knows how long the
// machine lay in a file. A copy calls [Leases.Moved] in between.
//
// Written here because of the budget of the guest's init: u-root's dhclient adds 1.0 MB to it, this 0.04 MB (November 2026).
type Leases struct {
	log     func(format string, args ...any)
	changed func()
	keepers []keeper

	// turn is held for reading by whoever asks somebody something, and for writing while nobody may.
	turn  sync.RWMutex
	round context.Context // of those who ask; ends with Hold
	stop  context.CancelFunc

	mu   sync.Mutex // held by Hold and Release, for as long as it takes others to stop
	held bool
	base context.Context

	state  sync.Mutex // guards what follows; nothing else runs under it
	leases map[int]Lease
}

// keeper keeps one interface's leases of one family.
type keeper interface {
	// once asks for, or prolongs, what is lent and keeps it until it has to ask again. It returns as soon as ctx ends.
	once(ctx context.Context) error
	// moved is told between hold and release that this machine is a copy.
	moved()
	first() <-chan struct{}
}

// NewLeases makes one that logs what comes and goes, and calls changed afterwards; both from any goroutine.
func NewLeases(log func(format string, args ...any), changed func()) *Leases {
	return &Leases{log: log, changed: changed, leases: map[int]Lease{}}
}

// Start begins to ask on those interfaces that want it. They must have been set up by ConfigureNetwork.
func (s *Leases) Start(ctx context.Context, interfaces []Interface) error {
	s.base = ctx
	s.round, s.stop = context.WithCancel(ctx)
	c, err := rtnl.Dial(0)
	if err != nil {
		return fmt.Errorf("leases: %w", err)
	}
	defer c.Close()
	links, err := c.Links()
	if err != nil {
		return fmt.Errorf("leases: %w", err)
	}
	for _, i := range interfaces {
		n := i.pick(links)
		if n < 0 {
			return fmt.Errorf("interface %s: no such NIC", i)
		}
		b := base{leases: s, index: links[n].Index, name: links[n].Name, mac: links[n].MAC, ready: make(chan struct{})}
		if i.DHCP4 {
			s.keepers = append(s.keepers, &keeper4{base: b})
		}
		if i.Auto6 {
			b.ready = make(chan struct{})
			s.keepers = append(s.keepers, &keeper6{base: b, static: slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() })})
		}
	}
	for _, k := range s.keepers {
		go guard.Do(func() { s.run(ctx, k) })
	}
	return nil
}

func (s *Leases) run(ctx context.Context, k keeper) {
	for try := 0; ctx.Err() == nil; try++ {
		s.turn.RLock()
		round := s.round
		err := k.once(round)
		s.turn.RUnlock()
		if err == nil || round.Err() != nil {
			try = 0
			continue
		}
		s.log("%v", err)
		sleep(ctx, backoff(try))
	}
}

// Await returns when everything has been lent once, or says with ctx's error what has not. Asking goes on in either case.
func (s *Leases) Await(ctx context.Context) error {
	for _, k := range s.keepers {
		select {
		case <-k.first():
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", k, context.Cause(ctx))
		}
	}
	return nil
}

// Hold ends every exchange and returns when nothing is on its way any more. It may be called again.
func (s *Leases) Hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held || s.stop == nil {
		return
	}
	s.held = true
	s.stop()
	s.turn.Lock()
}

// Release undoes Hold.
func (s *Leases) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.held {
		return
	}
	s.held = false
	s.round, s.stop = context.WithCancel(s.base)
	s.turn.Unlock()
}

// Moved says, between Hold and Release, that this machine is a copy: what was lent is asked for as by a machine that has nothing.
// On an interface that has been given another MAC it is taken off at once, because it is its twin's.
func (s *Leases) Moved() {
	for _, k := range s.keepers {
		k.moved()
	}
}

// Resolver are the names and name servers of base and then of all leases.
func (s *Leases) Resolver(base Resolver) Resolver {
	l := Lease{DNS: base.Servers, Search: base.Search}
	for _, more := range s.All() {
		l.merge(more)
	}
	return Resolver{Servers: l.DNS, Search: l.Search, Options: base.Options}
}

// All are the leases that there are.
func (s *Leases) All() []Lease {
	s.state.Lock()
	defer s.state.Unlock()
	var out []Lease
	for _, k := range s.keepers {
		if l, ok := s.leases[k.(interface{ key() int }).key()]; ok {
			out = append(out, l)
		}
	}
	return out
}

// base is what keepers have in common.
type base struct {
	leases *Leases
	index  int
	name   string
	mac    []byte // with which it asked last
	ready  chan struct{}
	done   bool
}

func (b *base) first() <-chan struct{} { return b.ready }

// keep notes a lease and tells everybody who cares; the zero Lease is that there is none.
func (b *base) keep(key int, l Lease) {
	b.leases.state.Lock()
	if len(l.Addresses) == 0 && len(l.DNS) == 0 {
		delete(b.leases.leases, key)
	} else {
		b.leases.leases[key] = l
	}
	b.leases.state.Unlock()
	b.leases.changed()
}

func (b *base) settle() {
	if !b.done {
		b.done = true
		close(b.ready)
	}
}

// link is the interface as it is now, whatever it is called by now.
func (b *base) link(c *rtnl.Conn) (rtnl.Link, error) {
	links, err := c.Links()
	if err != nil {
		return rtnl.Link{}, err
	}
	for _, l := range links {
		if l.Index == b.index {
			return l, nil
		}
	}
	return rtnl.Link{}, fmt.Errorf("interface %s: it is gone", b.name)
}

// remove takes addresses off; with them go the routes that need them.
func (b *base) remove(addresses []netip.Prefix) {
	c, err := rtnl.Dial(0)
	if err != nil {
		return
	}
	defer c.Close()
	for _, a := range addresses {
		_ = c.RemoveAddress(b.index, a) // it may be gone already
	}
}

// keeper4 is DHCP for IPv4.
type keeper4 struct {
	base
	lease Lease
	since time.Time
}

func (k *keeper4) key() int       { return k.index }
func (k *keeper4) String() string { return "interface " + k.name + ": no DHCP lease" }

func (k *keeper4) once(ctx context.Context) error {
	l, since := k.lease, time.Now()
	err := errNak
	if k.lease.address().IsValid() {
		// A lease that ran out while this machine lay in a file is prolonged by its server or refused.
		if l, err = k.prolong(ctx); errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, errNak) {
			k.leases.log("interface %s: %s is not ours any more: %v", k.name, k.lease.address(), err)
			k.drop()
			err = errNak
		}
	}
	if errors.Is(err, errNak) {
		l, err = k.ask(ctx, netip.Addr{}, func(c dhcpClient) (Lease, error) { return c.acquire(ctx) })
	}
	if err == nil {
		err = k.apply(l, since)
	}
	if err != nil {
		return fmt.Errorf("interface %s: %w", k.name, err)
	}
	if l.Valid < forever {
		sleep(ctx, l.T1-time.Since(since))
	} else {
		<-ctx.Done()
	}
	return nil
}

// prolong asks the server until T2 and then everybody until the end of the lease, each for a minute at least.
func (k *keeper4) prolong(ctx context.Context) (Lease, error) {
	more := func(server netip.Addr, end time.Duration) (Lease, error) {
		until := k.since.Add(end)
		if soon := time.Now().Add(shortest / 4); until.Before(soon) || k.lease.Valid == forever {
			until = soon
		}
		return k.ask(ctx, server, func(c dhcpClient) (Lease, error) { return c.prolong(ctx, k.lease, until) })
	}
	l, err := more(k.lease.Server, k.lease.T2)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		l, err = more(netip.Addr{}, k.lease.Valid)
	}
	return l, err
}

func (k *keeper4) ask(ctx context.Context, server netip.Addr, how func(dhcpClient) (Lease, error)) (Lease, error) {
	c, err := rtnl.Dial(0)
	if err != nil {
		return Lease{}, err
	}
	l, err := k.link(c)
	c.Close()
	if err == nil && len(l.MAC) != 6 {
		err = errors.New("it is no Ethernet")
	}
	if err != nil {
		return Lease{}, err
	}
	k.mac = l.MAC
	w, err := openWire4(ctx, l, k.lease.address().Addr(), server)
	if err != nil {
		return Lease{}, err
	}
	defer w.close()
	return how(dhcpClient{wire: w, mac: hardware(l.MAC), hostname: ownName()})
}

// apply makes the interface what the lease says. Nothing is removed but what an earlier lease had and this one has not.
func (k *keeper4) apply(l Lease, since time.Time) error {
	c, err := rtnl.Dial(0)
	if err != nil {
		return err
	}
	defer c.Close()
	fresh := k.lease.address() != l.address()
	if fresh {
		k.remove(k.lease.Addresses)
	}
	if l.MTU != 0 {
		// A NIC that cannot has a smaller one, which works as well.
		_ = c.SetLink(k.index, rtnl.LinkChange{MTU: l.MTU})
	}
	errs := addAddresses(c, k.index, l.Addresses)
	i := Interface{Addresses: l.Addresses, Gateway4: l.Gateway4, Routes: l.Routes}
	for _, r := range i.routes() {
		errs = append(errs, addRoute(c, k.index, r, i.covers(r.Gateway)))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	k.lease, k.since = l, since
	k.keep(k.key(), l)
	if fresh {
		k.leases.log("interface %s: %s by DHCP from %s", k.name, l.address(), l.Server)
		_ = Announce() // comfort: who had this address before us may be remembered
	}
	k.settle()
	return nil
}

func (k *keeper4) drop() {
	k.remove(k.lease.Addresses)
	k.lease = Lease{}
	k.keep(k.key(), Lease{})
}

func (k *keeper4) moved() {
	c, err := rtnl.Dial(0)
	if err != nil {
		return
	}
	defer c.Close()
	if l, err := k.link(c); err != nil || !bytes.Equal(l.MAC, k.mac) {
		k.drop()
	}
}

// ownName is the host name if it says something.
func ownName() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	if name := unix.ByteSliceToString(u.Nodename[:]); name != "localhost" && CheckHostname(name) == nil {
		return name
	}
	return ""
}

// random32 is for what must not be guessed or be the same in a copy: the kernel's pool is reseeded before anybody asks.
func random32() uint32 {
	var b [4]byte
	_, _ = unix.Getrandom(b[:], 0)
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}
