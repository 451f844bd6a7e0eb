package sockdiag

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// Options of an Inspector. The zero value looks at the network namespace of the calling thread.
type Options struct {
	// ExcludePIDs are processes whose sockets and pipes do not count in Busy, nor the far ends of their unix sockets. Nil
	// is the calling process: what rouse itself says to its own clients must not keep a drain from ending.
	ExcludePIDs []int
	// Ignore, if not nil, is asked for each busy socket, owner filled in; true leaves it out of Busy. For management
	// traffic that the gate lets through. It has no say in Inherited: every twin of a connection must go.
	Ignore func(*Socket) bool
	// Allowed is traffic that the gate lets through: what its sockets hold does not count in Busy. Inherited lists them
	// all the same. No owner is looked up for it.
	Allowed []Allowed
	// IgnoreConnecting leaves out sockets in SYN_SENT that carry no bytes. A gate on hold drops new flows, so a service that
	// keeps dialling keeps such a socket for as long as the gate holds; it holds nothing, and Inherited lists it.
	IgnoreConnecting bool
	// AllNamespaces looks at every network namespace that a process is in or that is mounted somewhere, besides the
	// own one. They are found anew at each look.
	AllNamespaces bool
	// Pipes counts unread bytes in pipes and FIFOs whose ends are open in more than one process. Unlisted counts what else no
	// table of the kernel lists: vsock, TCP sockets that both sides have closed while bytes were unread, and MPTCP
	// where the kernel has no diag for it. Finding these takes a pass over all descriptors of all processes, about 5 µs each, in
	// the first look and in each that finds nothing else. Wait makes one to confirm.
	Pipes, Unlisted bool
	// Expedite makes Barrier set /sys/kernel/rcu_expedited while it runs: the wait then takes a fraction of a millisecond
	// instead of ten and more, at the price of an interrupt to every processor. For a guest of our own; where the file is not
	// there or not to be written the barrier takes its time.
	Expedite bool
	// Withhold names protocols whose diag module is treated as absent, so that what is used in its place can be tested
	// on a kernel that has it. "all" is every protocol.
	Withhold []string
}

// Inspector looks at sockets. Its methods may be called from several goroutines; looks are taken one at a time.
type Inspector struct {
	options Options

	mu      sync.Mutex   // held for a whole look: the connections and the buffer serve one at a time
	spaces  []*namespace // the first is its own
	home    uint64       // inode of the first
	buf     []byte
	filter  []byte                 // notLoopback
	since   map[identity]time.Time // when what the last look found was first found
	handles handles
	owners  owners
}

// New opens the netlink sockets and finds out, once, which protocols the kernel has diagnostics for: asking for an
// absent one makes the kernel start modprobe, which must not happen between a resume and the opening of the gate.
func New(o Options) (*Inspector, error) {
	if o.ExcludePIDs == nil {
		o.ExcludePIDs = []int{os.Getpid()}
	}
	ins := &Inspector{options: o, buf: make([]byte, bufferSize), filter: notLoopback()}
	runtime.LockOSThread() // all of it in the one namespace
	defer runtime.UnlockOSThread()
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return nil, fmt.Errorf("sockdiag: own network namespace: %w", err)
	}
	ins.home = st.Ino
	space, err := openNamespace(0, nil, o.Withhold, ins.buf)
	if err != nil {
		return nil, fmt.Errorf("sockdiag: %w", err)
	}
	ins.spaces = []*namespace{space}
	return ins, nil
}

// Close releases everything that is held open.
func (ins *Inspector) Close() error {
	ins.mu.Lock()
	defer ins.mu.Unlock()
	var errs []error
	for _, ns := range ins.spaces {
		errs = append(errs, ns.close())
	}
	ins.spaces = ins.spaces[:0]
	return errors.Join(errs...)
}

// Sources names for each protocol where its queues are read, as "tcp: sock_diag".
func (ins *Inspector) Sources() []string {
	ins.mu.Lock()
	defer ins.mu.Unlock()
	if len(ins.spaces) == 0 {
		return nil
	}
	var out []string
	add := func(protocol, kind string) { out = append(out, protocol+": "+kind) }
	for i := range ins.spaces[0].sources {
		add(ins.spaces[0].sources[i].protocol, ins.spaces[0].sources[i].kind)
	}
	byOption := func(on bool) string {
		if on {
			return byHandle
		}
		return byNone
	}
	add("vsock", byOption(ins.options.Unlisted))
	add("closed tcp", byOption(ins.options.Unlisted))
	add("pipe", byOption(ins.options.Pipes))
	return out
}

// Busy returns every socket and queue that still holds something, each with its reason and its owner. The descriptors
// of processes are read only when there is something to find an owner for, and for what no table of the kernel shows:
// pipes and vsock among others, if asked for, and unix sockets without CONFIG_UNIX_DIAG.
func (ins *Inspector) Busy(ctx context.Context) ([]Socket, error) {
	ins.mu.Lock()
	defer ins.mu.Unlock()
	found, err := ins.look(ctx, true)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return ins.finish(found)
}

// Wait looks at once, and again with pauses, until nothing is held any more: two looks in a row found nothing. If ctx
// ends first it returns what is left, and an error that wraps ctx's. Owners are looked up for what is left, and for
// Options.Ignore, but not for WaitOptions.Looked: that would cost more than the looks.
func (ins *Inspector) Wait(ctx context.Context, o WaitOptions) (left []Socket, err error) {
	w := waiter{now: time.Now, after: time.After, look: func(ctx context.Context, confirm bool) ([]Socket, error) {
		ins.mu.Lock()
		defer ins.mu.Unlock()
		found, err := ins.look(ctx, confirm)
		if err == nil && len(found) > 0 && ins.options.Ignore != nil {
			return ins.finish(found)
		}
		return found, err
	}}
	left, err = w.wait(ctx, o)
	if len(left) == 0 || ins.options.Ignore != nil {
		return left, err
	}
	ins.mu.Lock()
	defer ins.mu.Unlock()
	return left, errors.Join(err, ins.owners.fill(left))
}

// look takes one look and leaves out what is excluded. A thorough one passes over all descriptors if it has to.
func (ins *Inspector) look(ctx context.Context, thorough bool) ([]Socket, error) {
	if err := ins.refresh(); err != nil {
		return nil, fmt.Errorf("sockdiag: %w", err)
	}
	l := look{ins: ins, ctx: ctx, walker: walker{thorough: thorough}}
	defer l.release()
	for _, ns := range ins.spaces {
		if err := l.all(ns); err != nil {
			return nil, fmt.Errorf("look at sockets: %w", err)
		}
	}
	if err := l.exclude(); err != nil {
		return nil, err
	}
	if err := l.unlisted(); err != nil {
		return nil, fmt.Errorf("look at descriptors: %w", err)
	}
	ins.age(l.found)
	return l.found, nil
}

// finish names the owners and asks the caller which of them do not count.
func (ins *Inspector) finish(found []Socket) ([]Socket, error) {
	if err := ins.owners.fill(found); err != nil {
		return nil, err
	}
	if ins.options.Ignore != nil {
		found = leaveOut(found, ins.options.Ignore)
	}
	return found, nil
}

// exclude leaves out the sockets of excluded processes, and the far ends of those. Nothing found: nothing read.
func (l *look) exclude() error {
	if len(l.found) == 0 {
		return nil
	}
	own, err := l.ins.ownInodes()
	if err != nil {
		return err
	}
	var addresses map[string][]netip.Addr // by interface, once a look
	owns := func(a netip.Addr, name string) bool {
		if addresses == nil {
			addresses = make(map[string][]netip.Addr)
		}
		list, asked := addresses[name]
		if !asked && err == nil {
			list, err = l.ins.spaces[0].addresses(l.ctx, l.ins.buf, name)
			addresses[name] = list
		}
		return slices.Contains(list, a)
	}
	l.found = leaveOut(l.found, func(s *Socket) bool {
		if s.Inode != 0 && own[s.Inode] || s.peer != 0 && own[s.peer] || s.peerPID != 0 && l.excluded(s.peerPID) {
			return true
		}
		for _, a := range l.ins.options.Allowed {
			if a.covers(s, owns) {
				return true
			}
		}
		return false
	})
	return err
}

// leaveOut removes sockets in place. They are large: none is passed by value.
func leaveOut(found []Socket, drop func(*Socket) bool) []Socket {
	n := 0
	for i := range found {
		if !drop(&found[i]) {
			if n != i {
				found[n] = found[i]
			}
			n++
		}
	}
	return found[:n]
}

// identity tells sockets apart from one look to the next.
type identity struct {
	cookie, inode, netns uint64
	name                 string
}

// age sets Since, and remembers only what was found now.
func (ins *Inspector) age(found []Socket) {
	if len(found) == 0 {
		ins.since = nil
		return
	}
	now, since := time.Now(), make(map[identity]time.Time, len(found))
	for i := range found {
		s := &found[i]
		key := identity{cookie: s.Cookie, inode: s.Inode, netns: s.Netns}
		if s.Cookie == 0 && s.Inode == 0 {
			key.name = s.Protocol + s.Interface + s.Local + s.Remote
		}
		first, ok := ins.since[key]
		if !ok {
			first = now
		}
		s.Since, since[key] = first, first
	}
	ins.since = since
}

// own tells the Inspector's own sockets, which hold the very dump that lists them.
func (ins *Inspector) own(inode uint64) bool {
	for _, ns := range ins.spaces {
		if inode == ns.diag.inode || inode == ns.route.inode {
			return true
		}
	}
	return false
}

// ownInodes are the sockets of the excluded processes.
func (ins *Inspector) ownInodes() (map[uint64]bool, error) {
	own := make(map[uint64]bool)
	for _, pid := range ins.options.ExcludePIDs {
		err := eachSocket(pid, func(_ int, inode uint64) bool { own[inode] = true; return true })
		if err != nil && !gone(err) {
			return nil, fmt.Errorf("descriptors of process %d: %w", pid, err)
		}
	}
	return own, nil
}
