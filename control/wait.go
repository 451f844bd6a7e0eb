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
func rouseWait(ctx context.Context, s *Server, raw json.RawMessage) (any, error) {
	var args struct {
		States    []string `json:"states"`
		TimeoutMS int64    `json:"timeout-ms"`
	}
	if err := decodeArgs(raw, &args); err != nil {
		return nil, err
	}
	w, ok := s.guest.(Waiter)
	if !ok {
		return nil, errors.New("this guest cannot be waited for")
	}
	if len(args.States) == 0 {
		args.States = []string{"running", "held"}
	}
	timeout := defaultWait
	if args.TimeoutMS > 0 {
		timeout = time.Duration(args.TimeoutMS) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := w.WaitFor(ctx, args.States); err != nil {
		return nil, err
	}
	return WaitResult{s.guest.Status(), s.guest.Report()}, nil
}
