package genid

import "time"

// How sources that tell of the same generation at different times are matched. Both times are the
// guest's own, which stands still while there is no guest.
const (
	// patience is how long a source that has moved waits for the first one to tell of the same clone. The
	// first one is memory that the hypervisor writes while the guest is stopped: more than no time at all
	// means that it is broken, or that the other source knows of something else. What waits is a second
	// opinion, never the first source.
	patience = 100 * time.Millisecond
	// recall is how long after the first source a later one may still tell of the same clone. Software
	// that bumps a native device, and kernel threads on a busy machine, are that slow.
	recall = time.Second
)

// reading is what a source holds: an id of 16 bytes, or a counter in the first word.
type reading [2]uint64

// member is a source that defines the identity.
type member struct {
	name   string
	read   func() reading       // a few loads from memory
	format func(reading) string // allocates; called only for a reading that is new

	known reading   // what the identity takes into account
	debt  int       // how many generations that are already counted this source has not shown yet
	since time.Time // since when it disagrees; zero if it does not
}

// agreement makes one identity out of several sources. The first is the best there is: each of its moves
// is a generation at once. A move of another source is the same generation if the first moved within
// recall before it, or within patience after it, and each move of the first excuses one of another; what
// is left over is a generation of its own: better one adjust too many than a clone that is taken for its twin.
type agreement struct {
	members []member
	told    time.Time // when the identity last changed
	base    string    // the first source's part of the identity
	text    string    // the identity
}

// start takes the sources as they are now for the generation that is known.
func (a *agreement) start() {
	for i := range a.members {
		a.members[i].known = a.members[i].read()
	}
	if len(a.members) > 0 {
		a.base = a.members[0].format(a.members[0].known)
		a.text = a.base
	}
}

// look reads all sources and returns the identity. It asks for the time only when a source has moved,
// and allocates only when the identity changes.
func (a *agreement) look(now func() time.Time) string {
	for i := range a.members {
		m := &a.members[i]
		v := m.read()
		if v == m.known {
			m.since = time.Time{}
			continue
		}
		if i == 0 {
			a.base = m.format(v)
			a.count(i, v, a.base, now())
			continue
		}
		a.second(i, v, now())
	}
	return a.text
}

// second judges a move of a source other than the first.
func (a *agreement) second(i int, v reading, now time.Time) {
	m := &a.members[i]
	switch {
	case m.debt > 0 && now.Sub(a.told) < recall:
		m.debt--
		m.known, m.since = v, time.Time{}
	case m.since.IsZero():
		m.since = now
	case now.Sub(m.since) >= patience:
		text := m.format(v)
		if a.base != "" {
			text = a.base + "/" + text
		}
		a.count(i, v, text, now)
	}
}

// count makes a move of source i a generation. The others may show it later; debts of generations that
// are too old are forgotten.
func (a *agreement) count(i int, v reading, text string, now time.Time) {
	stale := now.Sub(a.told) >= recall
	for j := range a.members {
		if stale {
			a.members[j].debt = 0
		}
		if j != i {
			a.members[j].debt++
		}
	}
	a.members[i].known, a.members[i].since = v, time.Time{}
	a.told, a.text = now, text
}
