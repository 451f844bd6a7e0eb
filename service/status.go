package service

import "time"

// incomparable as a field spares the linker a function that compares two of a struct.
type incomparable [0]func()

// States of a service.
const (
	Waiting  = "waiting"  // not started yet
	Starting = "starting" // runs, not ready
	Running  = "running"  // runs and is ready
	Stopping = "stopping" // was told to end
	Stopped  = "stopped"  // ended because it was told to
	Done     = "done"     // ended by itself with status 0 and is not to be restarted
	Failed   = "failed"   // ended badly and is not to be restarted
	Backoff  = "backoff"  // ended and will be restarted
)

// States of a service's health.
const (
	Unknown   = "unknown" // no check has ended yet
	Healthy   = "healthy"
	Unhealthy = "unhealthy"
)

// Status is what a service is doing.
type Status struct {
	_        incomparable
	Name     string    `json:"name"`
	State    string    `json:"state"`
	PID      int       `json:"pid,omitempty"` // main process; 0 if none
	Ready    bool      `json:"ready"`
	Restarts int       `json:"restarts"`
	ExitCode int       `json:"exit_code"`               // of the last end: 128 + signal if killed; -1 if none or not known
	Reason   string    `json:"reason,omitempty"`        // why it ended, or is not ready
	Text     string    `json:"text,omitempty"`          // what the service said by STATUS=
	Since    time.Time `json:"since"`                   // of the state
	Health   string    `json:"health,omitempty"`        // of a service with a health check
	OOMKills int       `json:"oom_kills,omitempty"`     // processes killed for want of memory, since the start
	Dropped  uint64    `json:"dropped_lines,omitempty"` // that the console or the log file missed
}
