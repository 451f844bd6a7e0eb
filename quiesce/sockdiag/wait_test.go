package sockdiag

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// script plays a list of looks against a clock that only pauses move.
type script struct {
	looks  []step
	taken  int
	empty  bool // the look before
	tb     testing.TB
	clock  time.Time
	pauses []time.Duration
}

type step struct {
	left []Socket
	err  error
	cost time.Duration
}

func (s *script) waiter() *waiter {
	return &waiter{
		look: func(_ context.Context, confirm bool) ([]Socket, error) {
			at := s.looks[min(s.taken, len(s.looks)-1)]
			if confirm != s.empty {
				s.tb.Errorf("look %d: confirm is %v", s.taken+1, confirm)
			}
			s.empty = at.err == nil && len(at.left) == 0
			s.taken++
			s.clock = s.clock.Add(at.cost)
			return at.left, at.err
		},
		now: func() time.Time { return s.clock },
		after: func(d time.Duration) <-chan time.Time {
			s.pauses = append(s.pauses, d)
			s.clock = s.clock.Add(d)
			done := make(chan time.Time, 1)
			done <- s.clock
			return done
		},
	}
}

func held(n uint64) []Socket { return []Socket{{Protocol: "tcp", Unread: n, Reason: whyUnread}} }

func TestWait(t *testing.T) {
	const ms = time.Millisecond
	broken := errors.New("broken")
	for _, c := range []struct {
		name   string
		looks  []step
		pauses []time.Duration
		looked int
		err    error
	}{
		{"idle at once", []step{{}, {}}, nil, 2, nil},
		{"refilled behind the first look", []step{{}, {left: held(1)}, {}, {}}, []time.Duration{ms}, 4, nil},
		{"backs off without progress", []step{{left: held(9)}, {left: held(9)}, {left: held(9)}, {left: held(9)}, {left: held(9)}, {left: held(9)}, {}, {}},
			[]time.Duration{ms, 2 * ms, 4 * ms, 8 * ms, 10 * ms, 10 * ms}, 8, nil},
		{"starts again with progress", []step{{left: held(9)}, {left: held(9)}, {left: held(8)}, {}, {}}, []time.Duration{ms, 2 * ms, ms}, 5, nil},
		{"dear looks are rare", []step{{left: held(9), cost: 100 * ms}, {}, {}}, []time.Duration{400 * ms}, 3, nil},
		{"torn is not idle", []step{{err: fmt.Errorf("dump qdisc: %w", ErrTorn)}, {}, {}}, []time.Duration{ms}, 3, nil},
		{"failure ends it", []step{{left: held(9)}, {err: broken}}, []time.Duration{ms}, 2, broken},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &script{tb: t, looks: c.looks}
			left, err := s.waiter().wait(context.Background(), WaitOptions{})
			if !errors.Is(err, c.err) || (c.err == nil) != (err == nil) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if err == nil && len(left) != 0 || s.taken != c.looked || fmt.Sprint(s.pauses) != fmt.Sprint(c.pauses) {
				t.Errorf("left %v after %d looks and pauses %v; want %d and %v", left, s.taken, s.pauses, c.looked, c.pauses)
			}
		})
	}
}

func TestWaitDeadline(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &script{tb: t, looks: []step{{left: held(7)}}}
	told := 0
	left, err := s.waiter().wait(ctx, WaitOptions{Looked: func(n int, left []Socket) {
		if told = n; n == 3 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || len(left) != 1 || left[0].Unread != 7 || told != 3 {
		t.Errorf("left %v, told %d, %v", left, told, err)
	}
}
