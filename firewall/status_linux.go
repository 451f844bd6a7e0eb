package firewall

import (
	"errors"
	"strings"
)

// Report is what one rung of the ladder holds.
type Report struct {
	Mechanism string `json:"mechanism"`
	State     string `json:"state"` // open, hold or shut
	// Problem says why the rung cannot be read, or how it differs from a gate
	// with these Options: changed by someone, or made with another allow list.
	Problem  string   `json:"problem,omitempty"`
	Coverage Coverage `json:"coverage"`
}

// Status reads every rung that this kernel has, whichever process made the
// gate and by whichever mechanism. Rungs that the kernel lacks are left out.
// With Options.Mechanism only the rungs named are read.
func Status(o Options) []Report {
	var reports []Report
	eachRung(o, func(name string, m mechanism) {
		s, err := m.state()
		r := Report{Mechanism: name, Coverage: m.coverage()}
		switch {
		case errors.Is(err, errNoLinks):
			s = Open
		case err != nil:
			r.Problem = err.Error()
			if p, ok := m.(peeker); ok {
				s = p.peek()
			}
		}
		r.State = s.String()
		reports = append(reports, r)
	})
	return reports
}

// ForceOpen opens every rung, whichever process shut it: the way out by hand.
// It does not ask whether opening is safe.
func ForceOpen(o Options) error {
	var failed error
	eachRung(o, func(name string, m mechanism) {
		err := m.set(Open)
		if err == nil {
			var s State
			if s, err = m.state(); err == nil && s != Open {
				err = ErrTampered
			}
		}
		if !errors.Is(err, errNoLinks) {
			failed = errors.Join(failed, describe(err, "open %s", name))
		}
	})
	return describe(failed, "force gate open")
}

// peeker is a mechanism that can guess at the state of a gate that is not
// exactly one of ours: by its names, or by what the map says.
type peeker interface{ peek() State }

// eachRung opens the rungs that work here, one at a time.
func eachRung(o Options, f func(name string, m mechanism)) {
	for _, r := range rungs {
		if o.Mechanism != "" && !strings.Contains("+"+o.Mechanism+"+", "+"+r.name+"+") {
			continue
		}
		m, err := r.open(o)
		if err != nil {
			if o.Log != nil {
				o.Log("gate: %s: %v", r.name, err)
			}
			continue
		}
		f(r.name, m)
		m.Close()
	}
}

// peek goes by the last rule of the first chain: a verdict and nothing else
// where the gate is shut.
func (n *nft) peek() State {
	t, err := n.readTable("inet")
	if err != nil || t == nil || len(t.rules["in"]) == 0 {
		return Open
	}
	count := 0
	rules := t.rules["in"]
	_ = attributes(rules[len(rules)-1], func(uint16, []byte) error {
		count++
		return nil
	})
	if count == 1 {
		return Shut
	}
	return Hold
}

// peek goes by the map of any program under our name.
func (c *cgroup) peek() State {
	found, err := c.attached()
	if err != nil {
		return Open
	}
	return peekMaps(append(found[0], found[1]...))
}

func (c *tc) peek() State {
	links, err := c.links()
	if err != nil {
		return Open
	}
	var infos []programInfo
	for _, l := range links {
		f, err := c.filters(l)
		if err != nil {
			return Open
		}
		infos = appendNew(appendNew(infos, f[0]), f[1])
	}
	return peekMaps(infos)
}

func peekMaps(infos []programInfo) State {
	guess := Open
	for _, info := range infos {
		for _, id := range info.maps {
			_ = withMap(id, func(fd int) error {
				if s, err := loadState(fd); err == nil && int(s) < len(stateNames) {
					guess = max(guess, s)
				}
				return nil
			})
		}
	}
	return guess
}
