package firewall

import (
	"errors"
	"slices"
	"strings"

	"rouse/internal/fmt"
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

// resetter is a mechanism with a slower way to set a state, which also undoes
// what others added to what is ours.
type resetter interface{ reset(State) error }

// opener is a mechanism that can be opened before it is removed: nftables. Of tc the qdisc has to go
// while nothing is let through, for that empties the link's queue.
type opener interface {
	// open lets everything through, at one instant, and proves it. What it
	// leaves stops nothing; set removes it.
	open() error
}

// rung names a mechanism and how to probe and open it.
type rung struct {
	name string
	open func(Options) (mechanism, error)
}

// rungs is the ladder, best first.
var rungs = []rung{
	{"nftables", openNft},
	{"cgroup", openCgroup},
	{"tc", openTC},
	{"fib", openFib},
}

// Mechanisms names the rungs of the ladder, best first. Rungs combine, as in
// "nftables+tc": the first one named holds, all of them shut.
func Mechanisms() []string {
	var names []string
	for _, r := range rungs {
		names = append(names, r.name)
	}
	return names
}

// openMechanism opens what is asked for, or the first rung that works and,
// where that one does not see everything, tc beside it if that works too.
func openMechanism(ladder []rung, o Options, log func(string, ...any)) (mechanism, string, error) {
	if o.Mechanism != "" {
		return openNamed(ladder, o)
	}
	var why error
	for i, r := range ladder {
		m, err := r.open(o)
		if err != nil {
			log("gate: %s: %v", r.name, err)
			why = errors.Join(why, describe(err, "%s", r.name))
			continue
		}
		return complete(m, r.name, ladder[i+1:], o, log)
	}
	return nil, "", why
}

// complete adds the next rung that sees all of what the first one does not, or
// else the one that leaves the least.
func complete(first mechanism, name string, rest []rung, o Options, log func(string, ...any)) (mechanism, string, error) {
	best, bestName, missing := first, name, len(first.coverage().Missing())
	for _, r := range rest {
		if missing == 0 {
			break
		}
		m, err := r.open(o)
		if err != nil {
			log("gate: %s beside %s: %v", r.name, name, err)
			continue
		}
		both := combined{first, m}
		n := len(both.coverage().Missing())
		if n >= missing {
			m.Close()
			continue
		}
		if c, ok := best.(combined); ok {
			c[1].Close()
		}
		best, bestName, missing = both, name+"+"+r.name, n
	}
	return best, bestName, nil
}

// openNamed opens one rung or several.
func openNamed(ladder []rung, o Options) (mechanism, string, error) {
	var all combined
	for _, name := range strings.Split(o.Mechanism, "+") {
		i := slices.IndexFunc(ladder, func(r rung) bool { return r.name == name })
		if i < 0 {
			all.Close()
			return nil, "", fmt.Errorf("mechanism %q: want of %q", name, Mechanisms())
		}
		m, err := ladder[i].open(o)
		if err != nil {
			all.Close()
			return nil, "", describe(err, "%s", name)
		}
		all = append(all, m)
	}
	if len(all) == 1 {
		return all[0], o.Mechanism, nil
	}
	return all, o.Mechanism, nil
}

// combined is several rungs as one: the first tells new flows from established
// ones, the others help to shut. Each switches at one instant, and one after
// another: shutting, the first goes first; opening, it goes last.
type combined []mechanism

// part is the state of the i-th rung in a state of the whole.
func (c combined) part(i int, s State) State {
	if s == Hold && i > 0 {
		return Open
	}
	return s
}

func (c combined) set(s State) error {
	return c.each(s, mechanism.set)
}

func (c combined) reset(s State) error {
	return c.each(s, func(m mechanism, s State) error {
		if r, ok := m.(resetter); ok {
			return r.reset(s)
		}
		return m.set(s)
	})
}

// open opens the others, and then the first one without removing it.
func (c combined) open() error {
	first, ok := c[0].(opener)
	if !ok {
		return errors.ErrUnsupported
	}
	others := c[1:]
	if err := others.set(Open); err != nil {
		return err
	}
	for _, m := range others {
		s, err := m.state()
		if err != nil && !errors.Is(err, errNoLinks) {
			return err
		}
		if s != Open {
			return ErrTampered
		}
	}
	return first.open()
}

// each goes on after an error when it shuts: a gate shut in part is better than
// an open one.
func (c combined) each(s State, set func(mechanism, State) error) error {
	var failed error
	for i := range c {
		if s != Shut {
			i = len(c) - 1 - i
		}
		err := set(c[i], c.part(i, s))
		if err != nil && s != Shut {
			return err
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// state is the one that all parts are in; a part with no links to gate has no
// say.
func (c combined) state() (State, error) {
	got := make([]State, len(c))
	idle := make([]bool, len(c))
	for i, m := range c {
		s, err := m.state()
		idle[i] = errors.Is(err, errNoLinks)
		if err != nil && !idle[i] {
			return Open, err
		}
		got[i] = s
	}
	for _, s := range []State{Shut, Hold, Open} {
		if c.agrees(got, idle, s) {
			return s, nil
		}
	}
	return Open, fmt.Errorf("%w: its parts are %v", ErrTampered, got)
}

func (c combined) agrees(got []State, idle []bool, s State) bool {
	for i := range got {
		if got[i] != c.part(i, s) && !idle[i] {
			return false
		}
	}
	return true
}

func (c combined) coverage() Coverage {
	sum := c[0].coverage()
	for _, m := range c[1:] {
		sum = sum.union(m.coverage())
	}
	return sum
}

func (c combined) Close() error {
	var err error
	for _, m := range c {
		err = errors.Join(err, m.Close())
	}
	return err
}
