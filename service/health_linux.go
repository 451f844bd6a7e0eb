package service

import (
	"context"

	"rouse/internal/fmt"
	"rouse/internal/guard"
)

// checkHealth probes a ready service until the attempt is over. After Retries failures in a row the service counts as
// failed, and is ended and restarted as its policy says. Nothing is probed while frozen or held, and what
// failed before that is forgotten.
func (u *unit) checkHealth(a *attempt) {
	h := u.spec.Health
	ctx, cancel := a.context()
	defer cancel()
	look := u.looker(h.Check)
	failed := 0
	u.healthy(Unknown)
	for sleep(ctx, h.Interval) == nil {
		if u.m.quiet() {
			failed = 0
			continue
		}
		short, cancel := context.WithTimeout(ctx, h.Timeout)
		ok := look(short)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case ok:
			failed = 0
			u.healthy(Healthy)
			continue
		}
		if failed++; failed < h.Retries {
			continue
		}
		u.healthy(Unhealthy)
		select {
		case a.sick <- fmt.Errorf("unhealthy: %d checks in a row failed", failed):
		case <-a.gone:
		}
		return
	}
}

func (u *unit) healthy(state string) { u.change(func(s *Status) { s.Health = state }) }

// context ends when the attempt is over.
func (a *attempt) context() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go guard.Do(func() {
		select {
		case <-a.gone:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, cancel
}
