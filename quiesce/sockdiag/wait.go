package sockdiag

import (
	"context"
	"errors"
	"time"

	"rouse/internal/fmt"
)

// ErrTorn is returned when the kernel said of one dump, again and again, that it changed while it was taken.
var ErrTorn = errors.New("table changed during every dump")

// WaitOptions tune a wait. The zero value is what a drain wants.
type WaitOptions struct {
	Shortest time.Duration // pause after a look that saw progress; 1 ms by default
	Longest  time.Duration // pause after many looks that saw none; 10 ms by default
	// Looked, if not nil, is told of every look: its number from 1, and what it found.
	Looked func(n int, left []Socket)
}

const (
	shortestPause = time.Millisecond
	longestPause  = 10 * time.Millisecond
	// dutyFactor keeps looking from slowing what it waits for: a pause is at least this many times as long as the
	// look before it, so that looks take a fifth of one processor at most, however many sockets there are.
	dutyFactor = 4
)

// waiter is the loop of Wait without a kernel or a clock.
//
// It does not listen to the kernel's multicast groups for destroyed sockets (SKNLGRP_INET_TCP_DESTROY): what a drain
// waits for is queues that empty, and the kernel tells of none (a test holds it to that); connections that end are
// not waited for, but for the few in FIN_WAIT1, CLOSING and LAST_ACK, whose end is seen a pause of 10 ms later at
// most. An idle machine is never waited for: it costs two looks.
type waiter struct {
	look  func(ctx context.Context, confirm bool) ([]Socket, error) // confirm: the one before found nothing
	now   func() time.Time
	after func(time.Duration) <-chan time.Time
}

// wait looks until two looks in a row find nothing: a single empty one may have missed bytes that moved behind it. When ctx
// ends first it returns what the last look found, with ctx's error.
func (w *waiter) wait(ctx context.Context, o WaitOptions) (left []Socket, err error) {
	pause := pauses{shortest: or(o.Shortest, shortestPause), longest: or(o.Longest, longestPause)}
	for n, empty := 1, 0; ; n++ {
		begin := w.now()
		found, err := w.look(ctx, empty > 0)
		if err == nil {
			left = found
		}
		switch {
		case ctx.Err() != nil:
			return left, fmt.Errorf("wait for %d sockets: %w", len(left), ctx.Err())
		case errors.Is(err, ErrTorn): // too busy to be looked at is not idle
			empty = 0
		case err != nil:
			return left, err
		default:
			if o.Looked != nil {
				o.Looked(n, left)
			}
			if len(left) > 0 {
				empty = 0
			} else if empty++; empty == 2 {
				return nil, nil
			} else {
				continue
			}
		}
		select {
		case <-ctx.Done():
		case <-w.after(max(pause.next(left), dutyFactor*w.now().Sub(begin))):
		}
	}
}

// pauses grow while nothing changes, and start again from the shortest when something does.
type pauses struct {
	shortest, longest time.Duration
	last              time.Duration
	sum               uint64
}

func (p *pauses) next(left []Socket) time.Duration {
	sum := uint64(len(left))
	for i := range left {
		sum += left[i].Unread + left[i].Unsent + uint64(left[i].Queued)
	}
	if p.last == 0 || sum != p.sum {
		p.last = p.shortest
	} else {
		p.last = min(2*p.last, p.longest)
	}
	p.sum = sum
	return p.last
}

func or(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}
