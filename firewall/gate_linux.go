package firewall

import (
	"errors"
	"fmt"
	"sync"
)

// mechanism is one rung of the ladder.
type mechanism interface {
	// set makes the kernel hold what the state says, whatever it holds now.
	set(State) error
	// state reads the kernel; an error that matches ErrTampered means that
	// what is there is ours only in part.
	state() (State, error)
	coverage() Coverage
	// Close lets go of handles and leaves the kernel as it is.
	Close() error
}

// Gate is the one gate of a network namespace: the one in which New was
// called, whichever thread uses it later. It may be used by many goroutines.
type Gate struct {
	mu   sync.Mutex // held over a whole switch: readers see states, never a way between two
	mech mechanism
	name string
	want State
	log  func(string, ...any)
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
	var why error
	for _, r := range rungs {
		if o.Mechanism != "" && o.Mechanism != r.name {
			continue
		}
		m, err := r.open(o)
		if err == nil {
			g.mech, g.name = m, r.name
			return g, nil
		}
		g.log("gate: %s: %v", r.name, err)
		why = errors.Join(why, describe(err, "%s", r.name))
	}
	if why == nil {
		return nil, fmt.Errorf("gate mechanism %q: want one of %q", o.Mechanism, Mechanisms())
	}
	return nil, describe(why, "gate")
}

// rung names a mechanism and how to probe and open it.
type rung struct {
	name string
	open func(Options) (mechanism, error)
}

// rungs is the ladder, best first.
var rungs = []rung{
	{"nftables", openNft},
}

// Mechanisms names the rungs of the ladder, best first.
func Mechanisms() []string {
	var names []string
	for _, r := range rungs {
		names = append(names, r.name)
	}
	return names
}

// Mechanism names what the gate is made of.
func (g *Gate) Mechanism() string { return g.name }

// Coverage says what the gate covers and what it does not.
func (g *Gate) Coverage() Coverage { return g.mech.coverage() }

// State reads the state back from the kernel. With an error that matches
// ErrTampered the gate is not known to be shut, and the state is Open.
func (g *Gate) State() (State, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s, err := g.mech.state()
	return s, describe(err, "gate state")
}

// Set brings the gate into a state at one instant and proves it by reading the
// kernel back. If the gate is there already, nothing is written.
func (g *Gate) Set(s State) error {
	if int(s) >= len(stateNames) {
		return fmt.Errorf("set gate: %v is none", s)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.set(s); err != nil {
		return describe(err, "set gate %v", s)
	}
	g.want = s
	return nil
}

func (g *Gate) set(s State) error {
	if got, err := g.mech.state(); err == nil && got == s {
		return nil
	}
	if err := g.mech.set(s); err != nil {
		return err
	}
	got, err := g.mech.state()
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
	return g.mech.Close()
}
