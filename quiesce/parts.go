package quiesce

import (
	"context"

	"rouse/internal/json"
)

// GateState is how much the gate lets through.
type GateState string

// The states of the gate.
const (
	GateOpen GateState = "open"
	GateHold GateState = "hold" // no new flows
	GateShut GateState = "shut" // nothing but loopback
)

// Parts is everything that the flow drives. All fields are needed.
type Parts struct {
	Gate        Gate
	Queues      Queues
	Services    Services
	Filesystems Filesystems
	Generation  Generation
	Kernel      Kernel
	Network     Network
}

// Gate opens and shuts the machine's network.
type Gate interface {
	// Set changes the gate and proves it by reading it back.
	Set(GateState) error
}

// Leftover is one thing that still holds bytes, as it appears in reports.
type Leftover struct {
	Protocol string `json:"protocol"`
	State    string `json:"state,omitempty"`
	Local    string `json:"local,omitempty"`
	Remote   string `json:"remote,omitempty"`
	// Unread and Unsent are bytes; for UDP and raw sockets bytes of kernel memory.
	Unread uint64 `json:"unread"`
	Unsent uint64 `json:"unsent"`
	// AgeMS is for how long it has been found so, in milliseconds.
	AgeMS   int64  `json:"age-ms,omitempty"`
	PID     int    `json:"pid,omitempty"`
	Command string `json:"command,omitempty"`
	Service string `json:"service,omitempty"`
	Reason  string `json:"reason"`
	// Handle belongs to the implementation of Queues.
	Handle any `json:"-"`
}

// Queues tells what sockets still hold.
type Queues interface {
	// Busy lists everything that holds something now.
	Busy(context.Context) ([]Leftover, error)
	// Barrier returns when packets that were inside the stack have landed in queues.
	Barrier() error
	// Destroy ends leftovers and returns those that cannot be ended (unix sockets).
	Destroy(context.Context, []Leftover) (left []Leftover, err error)
	// Sever destroys every connection to another machine, flushes conntrack and neighbours, and returns
	// how many connections there were. It fails if one is left.
	Sever(context.Context) (int, error)
}

// Services are the supervised programs.
type Services interface {
	BeforeSnapshot(context.Context) (detail any, err error)
	AfterRestore(context.Context) (detail any, err error)
	// Aborted tells those who were told of a snapshot that there is none.
	Aborted(context.Context) (detail any, err error)
	// Released tells the same that the machine which they were told of goes on, and is no copy.
	Released(context.Context) (detail any, err error)
	Settle(context.Context) error
	// Resting takes one look: whether every thread is asleep in a system call that waits.
	Resting() (bool, error)
	Freeze(context.Context) error
	// Thaw of services that are not frozen does nothing.
	Thaw(context.Context) error
	// RestartOwners restarts the services that these watchers belong to; it fails if one belongs to none.
	RestartOwners(context.Context, []Watcher) error
}

// Filesystems are frozen last and thawed first.
type Filesystems interface {
	// Freeze syncs all and returns how many filesystems were synced or frozen.
	Freeze(context.Context) (n int, detail any, err error)
	// Thaw of filesystems that are not frozen does nothing.
	Thaw(context.Context) error
}

// Watcher is a tracked watcher that has not acknowledged.
type Watcher struct {
	ID           uint64 `json:"id"`
	PID          int    `json:"pid"`
	Command      string `json:"command"`
	Service      string `json:"service,omitempty"`
	Acknowledged uint32 `json:"acknowledged"`
	LateMS       int64  `json:"late-ms"`
}

// Generation is the machine's identity and the counter that tells software of it.
type Generation interface {
	// ID is what the sources say this machine is, as text; "" if no source is available. It is called
	// every millisecond while quiesced, so it must be a few loads from memory.
	ID() string
	// Events says that a look at ID is worth it now; nil if nothing will ever say so.
	Events() <-chan struct{}
	// Bump raises the counter and wakes every watcher.
	Bump() (uint32, error)
	Counter() uint32
	Outdated() []Watcher
	// Wait returns when no tracked watcher is outdated, or with the context's error.
	Wait(context.Context) error
}

// Resume is what the host hands over at a resume. All of it may be empty.
type Resume struct {
	// Seed is mixed into the kernel's random pool, and credited only where the CPU has no generator of its own.
	Seed []byte
	// TimeNS is the host's clock, nanoseconds since 1970; 0 leaves the guest's clock.
	TimeNS   int64
	Identity json.RawMessage
	// Generation is the host's name for this generation: for machines without VMGenID.
	Generation string
}

// Kernel is the random pool and the clock and names of the machine.
type Kernel interface {
	// Reseed mixes id and seed into the random pool and makes sure that the next bytes drawn depend on them.
	Reseed(id string, seed []byte) (detail any, err error)
	// Identify applies clock, names and addresses. Without any it keeps them and says so in its detail.
	Identify(context.Context, Resume) (detail any, err error)
}

// Network is what carries the services' packets.
type Network interface {
	// AwaitLinks waits until the links that are up carry packets, or until it is clear that they do not soon. Bounded to a few
	// seconds.
	AwaitLinks() error
	// Announce tells neighbours where the machine is, once the gate is open.
	Announce() error
}
