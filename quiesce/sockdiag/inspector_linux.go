package sockdiag

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options of an Inspector. The zero value looks at the network namespace of the calling thread.
type Options struct {
	// ExcludePIDs are processes whose sockets and pipes do not count in Busy, nor the far ends of their unix sockets. Nil
	// is the calling process: what rouse itself says to its own clients must not keep a drain from ending.
	ExcludePIDs []int
	// Ignore, if not nil, is asked for each busy socket, owner filled in; true leaves it out of Busy. For management
	// traffic that the gate lets through. It has no say in Inherited: every twin of a connection must go.
	Ignore func(*Socket) bool
	// AllNamespaces looks at every network namespace that a process is in or that is mounted somewhere, besides the
	// own one. They are found anew at each look.
	AllNamespaces bool
	// Pipes counts unread bytes in pipes and FIFOs whose ends are open in more than one process. Finding them takes a pass
	// over all descriptors in each look that finds nothing else.
	Pipes bool
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
	since   map[identity]time.Time // when what the last look found was first found
	handles handles
}

// New opens the netlink sockets and finds out, once, which protocols the kernel has diagnostics for: asking for an
// absent one makes the kernel start modprobe, which must not happen between a resume and the opening of the gate.
func New(o Options) (*Inspector, error) {
	if o.ExcludePIDs == nil {
		o.ExcludePIDs = []int{os.Getpid()}
	}
	ins := &Inspector{options: o, buf: make([]byte, bufferSize)}
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
	ins.handles.vsock = ins.hasVsock()
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
	for _, s := range ins.spaces[0].sources {
		out = append(out, s.protocol+": "+s.kind)
	}
	for _, p := range []struct {
		name string
		on   bool
	}{{"vsock", ins.handles.vsock}, {"pipe", ins.options.Pipes}} {
		kind := byNone
		if p.on {
			kind = byHandle
		}
		out = append(out, p.name+": "+kind)
	}
	return out
}

// Busy returns every socket and queue that still holds something, each with its reason and its owner. The descriptors
// of processes are read only when there is something to find an owner for, and for what no table of the kernel shows:
// pipes, vsock, and unix sockets without CONFIG_UNIX_DIAG.
func (ins *Inspector) Busy(ctx context.Context) ([]Socket, error) {
	ins.mu.Lock()
	defer ins.mu.Unlock()
	if err := ins.refresh(); err != nil {
		return nil, fmt.Errorf("sockdiag: %w", err)
	}
	l := look{ins: ins, ctx: ctx}
	defer l.release()
	for _, ns := range ins.spaces {
		if err := l.all(ns); err != nil {
			return nil, fmt.Errorf("look at sockets: %w", err)
		}
	}
	if err := l.unlisted(); err != nil {
		return nil, fmt.Errorf("look at descriptors: %w", err)
	}
	if len(l.found) == 0 {
		ins.since = nil
		return nil, nil
	}
	return ins.attribute(l.found)
}

// Wait looks at once, and again with pauses, until nothing is held any more: two looks in a row found nothing. If ctx
// ends first it returns what is left, and an error that wraps ctx's.
func (ins *Inspector) Wait(ctx context.Context, o WaitOptions) (left []Socket, err error) {
	w := waiter{look: ins.Busy, now: time.Now, after: time.After}
	return w.wait(ctx, o)
}

// attribute leaves out what does not count and names the owners of the rest.
func (ins *Inspector) attribute(found []Socket) ([]Socket, error) {
	own, err := ins.ownInodes()
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(s Socket) bool {
		return s.Inode != 0 && own[s.Inode] || s.peer != 0 && own[s.peer] ||
			s.peerPID != 0 && slices.Contains(ins.options.ExcludePIDs, s.peerPID)
	})
	if err := fillOwners(found); err != nil {
		return nil, err
	}
	if ins.options.Ignore != nil {
		found = slices.DeleteFunc(found, func(s Socket) bool { return ins.options.Ignore(&s) })
	}
	ins.age(found)
	return found, nil
}

// identity tells sockets apart from one look to the next.
type identity struct {
	cookie, inode, netns uint64
	name                 string
}

// age sets Since, and remembers only what was found now.
func (ins *Inspector) age(found []Socket) {
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
	return slices.ContainsFunc(ins.spaces, func(ns *namespace) bool {
		return inode == ns.diag.inode || inode == ns.route.inode
	})
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

// Barrier waits until every packet that was inside the network stack when it was called has landed in a queue that Busy
// can see, or has left. Releasing a packet socket bound to all protocols goes through synchronize_net
// (packet_release, net/packet/af_packet.c); without CONFIG_PACKET membarrier's global command waits for the same grace
// period (kernel/sched/membarrier.c). Packets that a processor has put off are seen by Busy as softnet.
func (ins *Inspector) Barrier() error {
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return membarrier()
	}
	if err != nil {
		return fmt.Errorf("socket packet: %w", err)
	}
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close packet socket: %w", err)
	}
	return nil
}

func membarrier() error {
	const global = 1 // MEMBARRIER_CMD_GLOBAL, include/uapi/linux/membarrier.h
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); errno != 0 {
		return fmt.Errorf("membarrier: %w", errno)
	}
	return nil
}
