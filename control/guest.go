package control

import (
	"context"
	"time"

	"rouse/internal/json"
)

// Guest is what the server drives; the init implements it. Methods are called from several goroutines at
// once. A method that outlives its context does no harm but to its own caller: the server answers with a
// time-out and lets the method end in its own time. An error that wraps ErrRefused says that nothing was
// done and nothing changed; one that wraps context.DeadlineExceeded is answered as a time-out.
type Guest interface {
	// Quiesce runs every phase up to ready. filesystems counts those frozen or synced.
	Quiesce(ctx context.Context, o QuiesceOptions) (report json.RawMessage, filesystems int, err error)
	// Release lets go: thaw if the generation is the same, else the rest of the adjust. Called during
	// a quiesce it aborts the quiesce.
	Release(ctx context.Context) (report json.RawMessage, err error)
	// Resumed says that the host has resumed this guest, as a clone if Generation is new.
	Resumed(ctx context.Context, r Resume) error
	Status() Status
	// Reports are those that are kept, oldest first.
	Reports() []json.RawMessage
	Services() any
	// Service does an action, start, stop, restart or signal, on one service and returns how it is then.
	Service(ctx context.Context, name, action, signal string) (any, error)
	Watchers() any
	// Interfaces lists the network interfaces in the kernel's order.
	Interfaces() ([]Interface, error)
	// Log gives the last lines of a service, of the init itself if service is "".
	Log(service string, lines int) []string
	// LogSince gives the lines after that with the number after, most of them at most, and what to give as after
	// the next time. It waits for a line until ctx ends.
	LogSince(ctx context.Context, service string, after uint64, most int) (lines []LogLine, next uint64, err error)
	// Config is the configuration as it came out; Doctor what the kernel offers.
	Config() any
	Doctor() any
	// Frozen is true from the freezing of services until they are thawed.
	Frozen() bool
	// Shutdown begins mode: powerdown, reboot or halt, and returns.
	Shutdown(mode string) error
}

// QuiesceOptions are the host's wishes; zero values mean the guest's configuration.
type QuiesceOptions struct {
	Timeout   time.Duration // for all phases together
	Leftovers string        // "", "abort", "destroy" or "keep"
}

// Resume is what a host hands to a guest that it has just resumed.
type Resume struct {
	Seed       []byte          // random bytes for the kernel, any length
	TimeNS     int64           // wall clock in ns since 1970; 0 is unknown
	Identity   json.RawMessage // hostname, addresses and so on; the init knows the shape
	Generation string          // an id that no other resume has had; "" if the VMM has a VMGenID
}

// LogLine is a line of a log. Numbers begin with 1 and have no gap but where lines were lost.
type LogLine struct {
	Seq  uint64 `json:"seq"`
	Text string `json:"text"`
}

// Status is the answer to rouse-status.
type Status struct {
	State      string   `json:"state"`             // as in the state machine: running, quiesced, ...
	Generation uint32   `json:"generation"`        // the sysgenid counter
	Gate       string   `json:"gate"`              // open, hold or shut, read back from the kernel
	Mechanism  string   `json:"gate-mechanism"`    // which kernel mechanism shuts the gate
	VMGenID    string   `json:"vmgenid"`           // the id as a GUID, "" if there is no device
	Source     string   `json:"source"`            // where a new generation is noticed
	SysGenID   string   `json:"sysgenid"`          // how /dev/sysgenid is served
	Watchers   int      `json:"watchers"`          // tracked
	Outdated   int      `json:"outdated-watchers"` // tracked and not yet acknowledged
	Version    string   `json:"version"`
	UptimeMS   int64    `json:"uptime-ms"`
	Problems   []string `json:"problems,omitempty"` // what is degraded and what that costs
}
