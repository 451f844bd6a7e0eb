package control

import (
	"context"
	"errors"
	"time"

	"rouse/internal/json"
)

// Waiter is a Guest that can be waited for: without it a host that wants to hear READY would have to
// ask again and again, and each question costs a resumed guest time.
type Waiter interface {
	// WaitFor returns when the state is one of those named and nothing is about to change it.
	WaitFor(ctx context.Context, states []string) error
}

// WaitResult is the answer to rouse-wait: the state that was waited for and how the guest got there.
type WaitResult struct {
	Status Status          `json:"status"`
	Report json.RawMessage `json:"report,omitempty"`
}

// defaultWait bounds a wait that names no time-out.
const defaultWait = 10 * time.Second

// rouseWait answers when the guest has reached one of the states, or with a time-out.
func rouseWait(ctx context.Context, s *Server, a *arguments) (any, error) {
	w, ok := s.guest.(Waiter)
	if !ok {
		return nil, errors.New("this guest cannot be waited for")
	}
	states, timeout := a.States, defaultWait
	if len(states) == 0 {
		states = []string{"running", "held"}
	}
	if a.TimeoutMS > 0 {
		timeout = time.Duration(a.TimeoutMS) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := w.WaitFor(ctx, states); err != nil {
		return nil, err
	}
	r := WaitResult{Status: s.guest.Status()}
	if all := s.guest.Reports(); len(all) > 0 {
		r.Report = all[len(all)-1]
	}
	return r, nil
}
