package firewall

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// watcher is a mechanism that hears of changes by netlink.
type watcher interface {
	// watch makes events arrive on the descriptors, or stops them.
	watch(on bool) error
	events() []*netlinkSocket
}

// adopter is a mechanism that has to be told of new links; it says how many
// there were.
type adopter interface{ adopt(State) (int, error) }

// pollEvery is how often a mechanism is asked that gives no events (cgroup
// programs). A third of what is promised: a tampered gate is shut again within
// 10 ms.
const pollEvery = 3 * time.Millisecond

// Guard watches over the gate until ctx ends. Whenever somebody else changed
// it while it holds or is shut, it is set again at once, and then onTamper is
// told what had been found (Open if the gate was open or only in part ours).
// Links that appear are gated without a word. If the gate cannot be set again,
// the log says why, and the next change, or 3 ms, brings another try.
//
// The kernel tells of changes when they are made, so a gap lasts as long as it
// takes to read and write the ruleset, well below a millisecond, plus the time
// until this goroutine runs. Guard must have returned before Close or Detach.
func (g *Gate) Guard(ctx context.Context, onTamper func(State)) error {
	fds, err := g.startWatching()
	if err != nil {
		return describe(err, "guard gate")
	}
	defer g.stopWatching()
	defer context.AfterFunc(ctx, g.poke)()
	failed := false
	for ctx.Err() == nil {
		quiet, err := g.awaitEvent(fds, failed)
		if err != nil {
			return describe(err, "guard gate")
		}
		found, tampered, err := g.repair(quiet)
		if failed = err != nil; failed {
			g.log("gate: set again: %v", err)
		}
		if tampered && onTamper != nil {
			onTamper(found)
		}
	}
	return ctx.Err()
}

func (g *Gate) startWatching() ([]unix.PollFd, error) {
	g.mu.Lock()
	g.guards++
	g.mu.Unlock()
	fds := []unix.PollFd{{Fd: int32(g.wake), Events: unix.POLLIN}}
	w, ok := g.mech.(watcher)
	if !ok {
		return fds, nil
	}
	if err := w.watch(true); err != nil {
		g.endGuard()
		return nil, err
	}
	for _, s := range w.events() {
		fds = append(fds, unix.PollFd{Fd: int32(s.fd), Events: unix.POLLIN})
	}
	return fds, nil
}

// endGuard leaves nothing to clear to nobody.
func (g *Gate) endGuard() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.guards--; g.guards == 0 {
		_ = g.clear() // what went wrong is logged
	}
}

func (g *Gate) stopWatching() {
	g.endGuard()
	if w, ok := g.mech.(watcher); ok {
		if err := w.watch(false); err != nil {
			g.log("gate: stop watching: %v", err)
		}
	}
}

// awaitEvent blocks until something may have changed, and forgets what: the
// kernel is asked for the state in any case. An overrun of the socket's buffer
// (ENOBUFS) is an event like others. Quiet is that nothing happened for pollEvery.
func (g *Gate) awaitEvent(fds []unix.PollFd, soon bool) (quiet bool, err error) {
	timeout := -1
	if soon || g.polls() {
		timeout = int(pollEvery.Milliseconds())
	}
	n, err := unix.Poll(fds, timeout)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false, os.NewSyscallError("poll", err)
	}
	var b [8]byte
	_, _ = unix.Read(g.wake, b[:])
	if w, ok := g.mech.(watcher); ok {
		for _, s := range w.events() {
			_ = s.receive(func(message) error { return nil })
		}
	}
	return n == 0, nil
}

// polls says whether there is something to do without an event: to ask for the state, or to clear.
func (g *Gate) polls() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inert || g.want != Open && hasSilent(g.mech)
}

// hasSilent says whether any part of a mechanism gives no events.
func hasSilent(m mechanism) bool {
	if c, ok := m.(combined); ok {
		for _, part := range c {
			if hasSilent(part) {
				return true
			}
		}
		return false
	}
	_, ok := m.(watcher)
	return !ok
}

// repair sets the gate again if it is not as it was last set. What an opening has left it
// clears when all is quiet: not in the first milliseconds, in which others have to do.
func (g *Gate) repair(quiet bool) (found State, tampered bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.want == Open {
		if quiet {
			_ = g.clear() // what went wrong is logged
		}
		return Open, false, nil
	}
	for {
		found, err = g.read()
		if err == nil && found == g.want {
			return found, false, nil
		}
		if g.adoptLinks() == 0 { // no new link explains it
			break
		}
	}
	g.log("gate: found %v, %v; want %v", found, err, g.want)
	return found, true, g.set(g.want, g.want)
}

func (g *Gate) adoptLinks() int {
	a, ok := g.mech.(adopter)
	if !ok {
		return 0
	}
	n, err := a.adopt(g.want)
	if err != nil {
		g.log("gate: new link: %v", err)
	}
	return n
}

// poke ends a wait of Guard.
func (g *Gate) poke() {
	one := [8]byte{1, 1, 1, 1, 1, 1, 1, 1}
	_, _ = unix.Write(g.wake, one[:])
}

// membership joins or leaves multicast groups.
func (s *netlinkSocket) membership(on bool, groups ...int) error {
	opt := unix.NETLINK_DROP_MEMBERSHIP
	if on {
		opt = unix.NETLINK_ADD_MEMBERSHIP
	}
	for _, group := range groups {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, opt, group); err != nil {
			return os.NewSyscallError("netlink membership", err)
		}
	}
	return nil
}

func (n *nft) watch(on bool) error {
	return n.listen.membership(on, unix.NFNLGRP_NFTABLES)
}

func (n *nft) events() []*netlinkSocket { return []*netlinkSocket{n.listen} }

func (c *tc) watch(on bool) error {
	return c.listen.membership(on, unix.RTNLGRP_TC, unix.RTNLGRP_LINK)
}

func (c *tc) events() []*netlinkSocket { return []*netlinkSocket{c.listen} }

// adopt gates the links that appeared since the gate was set.
func (c *tc) adopt(s State) (int, error) {
	if s == Open {
		return 0, nil
	}
	links, err := c.links()
	if err != nil {
		return 0, err
	}
	n := 0
	for _, l := range links {
		if c.known[l.index] {
			continue
		}
		if err := c.attach(l); err != nil {
			return n, describe(err, "link %s", l.name)
		}
		n++
	}
	return n, nil
}

func (c combined) watch(on bool) error {
	for _, m := range c {
		if w, ok := m.(watcher); ok {
			if err := w.watch(on); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c combined) events() []*netlinkSocket {
	var all []*netlinkSocket
	for _, m := range c {
		if w, ok := m.(watcher); ok {
			all = append(all, w.events()...)
		}
	}
	return all
}

func (c combined) adopt(s State) (int, error) {
	total := 0
	for i, m := range c {
		if a, ok := m.(adopter); ok {
			n, err := a.adopt(c.part(i, s))
			total += n
			if err != nil {
				return total, err
			}
		}
	}
	return total, nil
}
