package rootfs

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
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
// Written here because of the budget of the guest's init: u-root's dhclient adds 1.0 MB to it (November 2026).
type Leases struct {
	log     func(format string, args ...any)
	given   Resolver // what is configured
	keepers []*keeper
	base    context.Context

	// turn is held for reading by whoever asks somebody something, and for writing while nobody may.
	turn  sync.RWMutex
	round context.Context // of those who ask; ends with Hold
	stop  context.CancelFunc

	mu   sync.Mutex // held by Hold and Release, for as long as it takes others to stop
	held bool

	state sync.Mutex // guards the leases of keepers for All; nothing else runs under it
}

// keeper keeps one interface's lease of one family. What it has is touched in its turn only, but for the lease, see Leases.state.
type keeper struct {
	leases *Leases
	c      *rtnl.Conn
	link   rtnl.Link // as it was when it asked last
	v6     bool
	ready  chan struct{} // closed with the first lease
	done   bool
	lease  *Lease    // nil: none
	since  time.Time // when lease was asked for
	names  Lease     // of IPv6: what routers said beside
	off    bool      // IPv6 is out of service until the copy may speak
	keep   bool      // IPv6 has configured addresses
}

// NewLeases makes one that logs what comes and goes, from any goroutine, and writes /etc/resolv.conf of given and what is lent.
func NewLeases(log func(format string, args ...any), given Resolver) *Leases {
	return &Leases{log: log, given: given}
}

// Start begins to ask on those interfaces that want it. They must have been set up by ConfigureNetwork.
func (s *Leases) Start(ctx context.Context, interfaces []Interface) error {
	s.base = ctx
	s.round, s.stop = context.WithCancel(ctx)
	for n := range interfaces {
		for _, v6 := range []bool{false, true} {
			i := &interfaces[n]
			if v6 && !i.Auto6 || !v6 && !i.DHCP4 {
				continue
			}
			k, err := s.newKeeper(i, v6)
			if err != nil {
				return fmt.Errorf("leases of interface %s: %w", i, err)
			}
			s.keepers = append(s.keepers, k)
			go guard.Do(k.run)
		}
	}
	return nil
}

func (s *Leases) newKeeper(i *Interface, v6 bool) (*keeper, error) {
	c, err := rtnl.Dial(0)
	if err != nil {
		return nil, err
	}
	k := &keeper{leases: s, c: c, v6: v6, ready: make(chan struct{})}
	links, err := c.Links()
	n := i.pick(links)
	if err == nil && n < 0 {
		err = errors.New("no such NIC")
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	k.link = links[n]
	for _, a := range i.Addresses {
		k.keep = k.keep || a.Addr().Is6()
	}
	return k, nil
}

func (k *keeper) run() {
	s := k.leases
	defer k.c.Close()
	for try := 0; s.base.Err() == nil; try++ {
		s.turn.RLock()
		round := s.round
		err := k.once(round)
		s.turn.RUnlock()
		if err == nil || round.Err() != nil {
			try = 0
			continue
		}
		s.log("interface %s: %v", k.link.Name, err)
		sleep(s.base, backoff(try))
	}
}

// once asks for, or prolongs, what is lent and keeps it until it has to ask again. It returns as soon as ctx ends.
func (k *keeper) once(ctx context.Context) error {
	if err := k.look(); err != nil {
		return err
	}
	if k.v6 {
		return k.listen(ctx)
	}
	until, err := k.renew(ctx, k.dhcp4)
	if err == nil {
		sleep(ctx, time.Until(until))
	}
	return err
}

// renew asks by how for a lease, or for the one that there is, and returns when to ask again. A lease that ran out while this machine
// lay in a file is prolonged by its server or refused: it is kept until then.
func (k *keeper) renew(ctx context.Context, how func(ctx context.Context, until time.Time) (*Lease, error)) (next time.Time, err error) {
	since := time.Now()
	until := since.Add(time.Hour) // then, from the beginning
	if k.lease != nil && k.lease.Valid > 0 {
		if until = k.since.Add(k.lease.Valid); until.Sub(since) < soon {
			until = since.Add(soon)
		}
	}
	l, err := how(ctx, until)
	if k.lease != nil && err != nil && ctx.Err() == nil {
		k.leases.log("interface %s: %s is not ours any more", k.link.Name, k.lease.Address)
		k.set(nil)
	}
	if err == nil {
		err = k.apply(l, since)
	}
	if err != nil {
		return since, err
	}
	return since.Add(l.T1), nil
}

// look sees the link as it is now, whatever it is called by now.
func (k *keeper) look() error {
	links, err := k.c.Links()
	for n := range links {
		if l := &links[n]; l.Index == k.link.Index && len(l.MAC) == 6 {
			k.link = *l
			return nil
		}
	}
	return errors.Join(err, errors.New("it is gone, or no Ethernet"))
}

// apply makes the interface what the lease says. Nothing is removed but what an earlier lease had and this one has not.
func (k *keeper) apply(l *Lease, since time.Time) error {
	fresh := k.lease == nil || k.lease.Address != l.Address
	if fresh {
		k.set(nil)
	}
	if l.MTU != 0 {
		// A NIC that cannot has a smaller one, which works as well.
		_ = k.c.SetLink(k.link.Index, rtnl.LinkChange{MTU: l.MTU})
	}
	k.since = since
	if l.Address.IsValid() {
		i := &Interface{Gateway4: l.Gateway4, Routes: l.Routes, Addresses: []netip.Prefix{l.Address}}
		if err := addAll(k.c, k.link.Index, i, i.Addresses); err != nil {
			return err
		}
	}
	k.set(l)
	if fresh && l.Address.IsValid() {
		k.leases.log("interface %s: leased %s", k.link.Name, l.Address)
		_ = Announce() // comfort: who had this address before us may be remembered
	}
	return nil
}

// set notes a lease and tells everybody who cares; nil takes off the one that there is.
func (k *keeper) set(l *Lease) {
	if l == nil && k.lease == nil {
		return
	}
	if l == nil && k.lease != nil && k.lease.Address.IsValid() {
		_ = k.c.RemoveAddress(k.link.Index, k.lease.Address) // it may be gone already
	}
	k.leases.state.Lock()
	k.lease = l
	k.leases.state.Unlock()
	if r := k.leases.resolver(); len(r.Servers) > 0 {
		if err := WriteResolver(r); err != nil {
			k.leases.log("%v", err)
		}
	}
	// After the file: services start on this, and ask for names at once.
	if l != nil && !k.v6 {
		k.settle()
	}
}

func (k *keeper) settle() {
	if !k.done {
		k.done = true
		close(k.ready)
	}
}

func (k *keeper) dhcp4(ctx context.Context, until time.Time) (*Lease, error) {
	w, err := openWire4(ctx, k)
	if err != nil {
		return nil, err
	}
	defer w.close()
	c := &dhcpClient{wire: w, mac: hardware(k.link.MAC), hostname: ownName()}
	if k.lease != nil {
		return c.prolong(ctx, k.lease, until)
	}
	return c.acquire(ctx, until)
}

// Await returns when everything has been lent once, or says with ctx's error what has not. Asking goes on in either case.
func (s *Leases) Await(ctx context.Context) error {
	for _, k := range s.keepers {
		select {
		case <-k.ready:
		case <-ctx.Done():
			what := "no DHCP server"
			if k.v6 {
				what = "no IPv6 router"
			}
			return fmt.Errorf("interface %s: %s: %w", k.link.Name, what, ctx.Err())
		}
	}
	return nil
}

// Hold ends every exchange and returns when nothing is on its way any more. It may be called again; nil leases hold nothing.
func (s *Leases) Hold() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.held && s.stop != nil {
		s.held = true
		s.stop()
		s.turn.Lock()
	}
}

// Release undoes Hold.
func (s *Leases) Release() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held {
		s.held = false
		s.round, s.stop = context.WithCancel(s.base)
		s.turn.Unlock()
	}
}

// Moved says, between Hold and Release, that this machine is a copy. On an interface that has been given another MAC what was lent is
// taken off at once, because it is its twin's, and asked for as by a machine that has nothing.
func (s *Leases) Moved() {
	if s == nil {
		return
	}
	for _, k := range s.keepers {
		before := string(k.link.MAC)
		if err := k.look(); err == nil && string(k.link.MAC) == before {
			continue
		}
		k.names = Lease{}
		k.set(nil)
		// With configured addresses IPv6 stays: ReplaceNetwork has removed what was the twin's.
		if k.off = k.v6 && !k.keep; k.off {
			k.disable("1")
		}
	}
}

// resolver are the names and name servers that are given and then those of all leases.
func (s *Leases) resolver() Resolver {
	l := &Lease{DNS: s.given.Servers, Search: s.given.Search}
	for _, more := range s.All() {
		l.merge(more)
	}
	return Resolver{Servers: l.DNS, Search: l.Search, Options: s.given.Options}
}

// All are the leases that there are. They do not change any more.
func (s *Leases) All() (list []*Lease) {
	s.state.Lock()
	defer s.state.Unlock()
	for _, k := range s.keepers {
		if k.lease != nil {
			list = append(list, k.lease)
		}
	}
	return list
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
	return binary.NativeEndian.Uint32(b[:])
}

// ended tells whether err is only that there was nothing to be had in time.
func ended(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, unix.ENOBUFS)
}
