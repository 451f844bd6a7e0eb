package quiesce

import "rouse/internal/fmt"

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

// transitions is the whole machine: what is not here cannot happen. Rows without a first state hold for every state
// that has no row of its own for the event.
var transitions = [...]struct {
	from State
	on   Event
	to   State
}{
	// A new generation goes first everywhere. While booting: whatever the guest has drawn from the random pool is its
	// twin's too. While running: uncontrolled. While adjusting: again, from its first step.
	{"", EventNewGeneration, Adjusting},
	{"", EventFault, Held}, // what has a mistake in it must not open the gate

	{Booting, EventReady, Running},

	{Running, EventQuiesce, Quiescing},

	{Quiescing, EventEmptied, Quiesced},
	{Quiescing, EventFailed, Thawing},
	{Quiescing, EventRelease, Thawing},

	{Quiesced, EventRelease, Thawing},
	{Quiesced, EventWatchdog, Thawing},

	{Thawing, EventThawed, Running},
	{Thawing, EventFailed, Held}, // it may be frozen or shut: say so, try again when asked

	{Adjusting, EventOpened, Running},
	{Adjusting, EventFailed, Held},

	// The late watcher acknowledged or went away, or the host asks for another try: from the first
	// step, because only the whole adjust is known to be safe.
	{Held, EventCleared, Adjusting},
	{Held, EventRelease, Adjusting},
}

// next is the state after an event, or an error that says what would have been possible.
func next(from State, e Event) (State, error) {
	can := ""
	for _, t := range transitions {
		if t.from != "" && t.from != from {
			continue
		}
		if t.on == e {
			return t.to, nil
		}
		can += ", " + string(t.on)
	}
	return from, fmt.Errorf("%s while %s: not possible; possible are%s", e, from, can[1:])
}
