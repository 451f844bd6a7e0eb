package service

import (
	"strconv"
	"time"
)

// policy decides what follows the end of a service's process. It is told the time, so that a test
// needs no clock.
type policy struct {
	starts   []time.Time // within the window
	failures int         // in a row, for the delay
}

// next returns how long to wait before the next start, and whether there is to be one; if not, why
// may say what the end alone does not.
func (p *policy) next(s *Spec, end *ending, began, now time.Time) (delay time.Duration, again bool, why string) {
	switch {
	case end.permanent:
		return 0, false, ""
	case end.known && end.status.Exited() && end.code() == NoRestart:
		return 0, false, "which asks for no restart"
	case s.Restart == "never", s.Restart == "on-failure" && end.good():
		return 0, false, ""
	}
	if !p.allowed(s, began, now) {
		return 0, false, "started " + strconv.Itoa(s.StartLimit) + " times within " + s.StartWindow.String()
	}
	if now.Sub(began) >= s.RestartMax {
		p.failures = 0 // it had worked; this is a new trouble
	}
	p.failures++
	return backoff(s.RestartDelay, s.RestartMax, p.failures), true, ""
}

// allowed counts the start at began and tells whether one more stays within the limit.
func (p *policy) allowed(s *Spec, began, now time.Time) bool {
	if s.StartLimit < 0 {
		return true
	}
	kept := p.starts[:0]
	for _, t := range append(p.starts, began) {
		if now.Sub(t) < s.StartWindow {
			kept = append(kept, t)
		}
	}
	p.starts = kept
	return len(kept) < s.StartLimit
}

// backoff is first, doubled for each failure after the first one, at most most.
func backoff(first, most time.Duration, failures int) time.Duration {
	d := first
	for i := 1; i < failures && d < most; i++ {
		d *= 2
	}
	return min(d, most)
}
