package quiesce

import (
	"fmt"
	"slices"
)

// State is where the machine is in its life around snapshots.
type State string

// The states.
const (
	Booting   State = "booting"   // services start; the gate is open
	Running   State = "running"   // ordinary life
	Quiescing State = "quiescing" // on the way to a snapshot
	Quiesced  State = "quiesced"  // a snapshot may be taken at any instant
	Thawing   State = "thawing"   // the same machine goes on
	Adjusting State = "adjusting" // a new generation: nothing may leave
	Held      State = "held"      // an adjust could not be finished: the gate stays shut
)

// Event is what moves the machine from one state to another.
type Event string

// The events.
const (
	EventReady         Event = "services ready"
	EventQuiesce       Event = "quiesce asked"
	EventEmptied       Event = "every phase of the quiesce done"
	EventFailed        Event = "phase failed"
	EventRelease       Event = "release"
	EventWatchdog      Event = "watchdog"
	EventThawed        Event = "thawed and opened"
	EventNewGeneration Event = "new generation"
	EventOpened        Event = "adjusted and opened"
	EventCleared       Event = "hindrance gone"
	EventFault         Event = "fault of rouse itself"
)

// transitions is the whole machine: what is not here cannot happen.
var transitions = map[State]map[Event]State{
	Booting: {
		EventReady: Running,
		// A snapshot of a booting guest: whatever it has drawn from the random pool is its twin's too.
		EventNewGeneration: Adjusting,
		EventFault:         Held, // in every state: what has a mistake in it must not open the gate
	},
	Running: {
		EventQuiesce:       Quiescing,
		EventNewGeneration: Adjusting, // uncontrolled
		EventFault:         Held,
	},
	Quiescing: {
		EventEmptied:       Quiesced,
		EventFailed:        Thawing,
		EventRelease:       Thawing,
		EventNewGeneration: Adjusting,
		EventFault:         Held,
	},
	Quiesced: {
		EventRelease:       Thawing,
		EventWatchdog:      Thawing,
		EventNewGeneration: Adjusting,
		EventFault:         Held,
	},
	Thawing: {
		EventThawed:        Running,
		EventFailed:        Held, // it may be frozen or shut: say so, try again when asked
		EventNewGeneration: Adjusting,
		EventFault:         Held,
	},
	Adjusting: {
		EventOpened:        Running,
		EventFailed:        Held,
		EventNewGeneration: Adjusting, // again, from its first step
		EventFault:         Held,
	},
	Held: {
		// The late watcher acknowledged or went away, or the host asks for another try: from the first
		// step, because only the whole adjust is known to be safe.
		EventCleared:       Adjusting,
		EventRelease:       Adjusting,
		EventNewGeneration: Adjusting,
		EventFault:         Held,
	},
}

// next is the state after an event, or an error that says what would have been possible.
func next(from State, e Event) (State, error) {
	if to, ok := transitions[from][e]; ok {
		return to, nil
	}
	var can []string
	for e := range transitions[from] {
		can = append(can, string(e))
	}
	slices.Sort(can)
	return from, fmt.Errorf("%s while %s: not possible; possible are %q", e, from, can)
}
