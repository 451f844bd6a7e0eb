package firewall

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// Gate is the one gate of a network namespace: the one in which New was
// called, whichever thread uses it later. It may be used by many goroutines.
type Gate struct {
	mu   sync.Mutex // held over a whole switch: readers see states, never a way between two
	mech mechanism
	name string
	want State // what Guard defends
	wake int   // eventfd: Guard looks again

	guards int  // that run now
	inert  bool // it was opened, and what stops nothing any more is still installed: a Guard will remove it
	log    func(string, ...any)
}

// New finds the mechanism and prepares all it will need: sockets, programs and
// the bytes of every switch. It installs nothing in the caller's namespace;
// probing happens in a network namespace of its own, which is thrown away.
// Errors match *UnsupportedError and name the kernel's option where no
// mechanism of those asked for works.
//
// What a gate of an earlier process left stays: State tells.
func New(o Options) (*Gate, error) {
	for _, a := range o.Allow {
		if err := a.check(); err != nil {
			return nil, err
		}
	}
	g := &Gate{log: o.Log}
	if g.log == nil {
		g.log = func(string, ...any) {}
	}
	m, name, err := openMechanism(rungs, o, g.log)
	if err != nil {
		return nil, describe(err, "gate")
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		m.Close()
		return nil, describe(err, "gate: eventfd")
	}
	g.mech, g.name, g.wake = m, name, wake
	return g, nil
}

// Mechanism names what the gate is made of.
func (g *Gate) Mechanism() string { return g.name }

// Coverage says what the gate covers and what it does not.
func (g *Gate) Coverage() Coverage { return g.mech.coverage() }

// State reads the state back from the kernel. With an error that matches
// ErrTampered the gate is not known to be shut, and the state is Open. Of a gate
// that a Guard has still to clear, it removes what is left first.
func (g *Gate) State() (State, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.clear()
	s, err := g.read()
	return s, describe(err, "gate state")
}

// Set brings the gate into a state at one instant and proves it by reading the
// kernel back. If it is where this Gate has set it before, nothing is written.
//
// While a Guard runs, to open is only that instant, and proving it: the hooks that
// stop nothing any more, which take the kernel ten times as long, the Guard removes once
// there is time for it. Without one Set removes them itself.
func (g *Gate) Set(s State) error {
	if int(s) >= len(stateNames) {
		return fmt.Errorf("set gate: %v is none", s)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.poke()
	before := g.want
	g.want = s // also if setting fails: Guard tries again
	return describe(g.set(s, before), "set gate %v", s)
}

// read takes the mechanism's word where there is no link to look at.
func (g *Gate) read() (State, error) {
	s, err := g.mech.state()
	if errors.Is(err, errNoLinks) {
		return s, nil
	}
	return s, err
}

func (g *Gate) set(s, before State) error {
	if s != Open {
		g.inert = false // what is left is used again
	} else if o, ok := g.mech.(opener); ok && g.guards > 0 && before != Open && o.open() == nil {
		g.inert = true
		return nil
	} else if g.inert {
		return g.clear()
	}
	// A state that is another than that of before needs no look first: it is not there, or it is made again, at
	// one instant as ever.
	if s == before {
		if got, err := g.read(); err == nil && got == s {
			return nil
		}
	}
	return g.whole(s)
}

// whole sets a state with all that goes with it, from whatever there is.
func (g *Gate) whole(s State) error {
	err := g.mech.set(s)
	if err == nil {
		err = g.prove(s)
	}
	if r, ok := g.mech.(resetter); ok && err != nil && !errors.Is(err, ErrNoHold) {
		g.log("gate: %v; set anew", err)
		if err = r.reset(s); err == nil {
			err = g.prove(s)
		}
	}
	return err
}

// clear removes what an opening has left, and proves that all of it is gone.
func (g *Gate) clear() error {
	if !g.inert {
		return nil
	}
	g.inert = false
	err := g.whole(Open)
	if err != nil {
		g.log("gate: clear what is left: %v", err)
	}
	return err
}

// prove reads back.
func (g *Gate) prove(s State) error {
	got, err := g.read()
	if err == nil && got != s {
		err = fmt.Errorf("%w: the kernel holds %v", ErrTampered, got)
	}
	return err
}

// Close opens the gate, leaves no trace of it and lets go of its handles.
func (g *Gate) Close() error {
	err := g.Set(Open)
	return errors.Join(err, g.Detach())
}

// Detach lets go of the handles and leaves the gate as it stands: a command
// that shuts the gate and ends leaves it shut. The Gate cannot be used again.
func (g *Gate) Detach() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return errors.Join(g.mech.Close(), unix.Close(g.wake))
}
