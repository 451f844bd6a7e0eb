package quiesce

import "time"

// ReportVersion rises when a field changes its meaning; new fields do not raise it.
const ReportVersion = 1

// Report tells of one quiesce, thaw or adjust. Times named NS are nanoseconds; StartNS counts from the
// start of the flow on the monotonic clock, so that reports of one machine compare with each other.
type Report struct {
	Version int `json:"version"`
	// Index counts the reports of this machine and of those that it is a copy of, from 1.
	Index int    `json:"index"`
	Kind  string `json:"kind"` // "quiesce", "thaw", "adjust" or "fault"
	// Outcome is "ready" (quiesced), "open", "held", "aborted" (thawed again) or "superseded" (by a new generation).
	Outcome string `json:"outcome"`
	// Reason is why the outcome is not the one that was asked for.
	Reason     string  `json:"reason,omitempty"`
	VMGenID    string  `json:"vmgenid,omitempty"`
	Generation uint32  `json:"generation"`
	StartNS    int64   `json:"start-ns"`
	DurationNS int64   `json:"duration-ns"`
	Phases     []Phase `json:"phases"`
	// Leftovers are what the drain could not empty, under the policies keep and abort; Destroyed those it ended.
	Leftovers []Leftover `json:"leftovers,omitempty"`
	Destroyed []Leftover `json:"destroyed,omitempty"`
	// Filesystems counts those that were synced or frozen.
	Filesystems int `json:"filesystems,omitempty"`
	// Severed counts inherited connections destroyed before anything could leave through them.
	Severed int `json:"severed"`
	// Uncontrolled is an adjust after a snapshot of a machine that was not quiesced; it ran unguarded for
	// at most UnguardedNS.
	Uncontrolled bool  `json:"uncontrolled,omitempty"`
	UnguardedNS  int64 `json:"unguarded-ns,omitempty"`
	// Faults are the page faults of rouse itself from the resume until the gate was open, of an adjust.
	Faults *Faults `json:"faults,omitempty"`
	// Late are tracked watchers that did not acknowledge in time.
	Late []Watcher `json:"late,omitempty"`
	// Warnings are things that went wrong and endanger nothing.
	Warnings []string `json:"warnings,omitempty"`
}

// Phase is one step of a report.
type Phase struct {
	Name       string `json:"name"`
	StartNS    int64  `json:"start-ns"`
	DurationNS int64  `json:"duration-ns"`
	Error      string `json:"error,omitempty"`
	Detail     any    `json:"detail,omitempty"`
}

// Faults counts page faults: Major had to wait for a disk.
type Faults struct {
	Minor int64 `json:"minor"`
	Major int64 `json:"major"`
}

func (r *Report) warn(message string) { r.Warnings = append(r.Warnings, message) }

// finish closes the report.
func (r *Report) finish(outcome, reason string, now time.Duration) {
	r.Outcome, r.Reason = outcome, reason
	r.DurationNS = int64(now) - r.StartNS
}
