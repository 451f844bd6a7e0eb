package service

import (
	"context"
	"errors"
	"os"
	"syscall"
)

// ErrHeld is wrapped by the error for what is asked for by hand while a snapshot is being taken: from
// HoldRestarts to the thaw. After that it is allowed although restarts are held still: to restart a service whose
// watcher is late is how a clone is adjusted.
var ErrHeld = errors.New("not while a snapshot is taken; ask again when it is over")

// byHand finds the service that somebody wants something of.
func (m *Manager) byHand(name string) (*unit, error) {
	u := m.byName[name]
	switch {
	case u == nil:
		return nil, about("service", name, errNoService)
	case !m.prepared.Load():
		return nil, errNotStarted
	case !m.mayStart(byHand):
		return nil, about("service", name, ErrHeld)
	}
	return u, nil
}

var errNoService = errors.New("no such service")

// StartService starts one service unless it runs, and waits until it is ready. It asks neither whether those
// that it comes after are ready, nor does it start them. Should a snapshot begin meanwhile, the service starts
// once that is over.
func (m *Manager) StartService(ctx context.Context, name string) error {
	u, err := m.byHand(name)
	if err == nil {
		err = about("service", name, u.start(ctx, byHand))
	}
	return err
}

// StopService stops one service and leaves those that come after it alone.
func (m *Manager) StopService(ctx context.Context, name string) error {
	u, err := m.byHand(name)
	if err == nil {
		err = about("service", name, u.stop(ctx))
	}
	return err
}

// Restart stops one service and starts it again, and waits until it is ready.
func (m *Manager) Restart(ctx context.Context, name string) error {
	u, err := m.byHand(name)
	if err == nil {
		err = about("service", name, u.restart(ctx))
	}
	return err
}

func (u *unit) restart(ctx context.Context) error {
	if err := u.stop(ctx); err != nil {
		return err
	}
	return u.start(ctx, byHand)
}

// Signal sends sig to the main process of a service. Without one the error is os.ErrProcessDone.
func (m *Manager) Signal(name string, sig syscall.Signal) error {
	u, err := m.byHand(name)
	if err != nil {
		return err
	}
	u.mu.Lock()
	a := u.attempt
	var p *Process
	if a != nil {
		p = a.main
	}
	u.mu.Unlock()
	err = os.ErrProcessDone
	if p != nil {
		err = p.Signal(sig)
	}
	return about("service", name, err)
}

// LogLine is a line that a service printed.
type LogLine struct {
	Seq  uint64 `json:"seq"` // 1 is the first line since the start of the Manager
	Text string `json:"text"`
}

// LogSince returns the lines of a service after that with the number after, at most max of them (0: all that are
// kept), and what to give as after the next time. It waits until there is a line, or ctx ends, whose error it returns. Who asks too
// seldom finds a gap in the numbers: nothing waits for him, and nothing but the ring is kept for him.
func (m *Manager) LogSince(ctx context.Context, name string, after uint64, max int) ([]LogLine, uint64, error) {
	u := m.byName[name]
	if u == nil {
		return nil, after, about("service", name, errNoService)
	}
	if !m.prepared.Load() {
		return nil, after, errNotStarted
	}
	for {
		kept, count, more := u.journal.ring.since(after)
		if len(kept) > 0 {
			lines := numbered(kept, count, max)
			return lines, lines[len(lines)-1].Seq, nil
		}
		if more == nil { // closed
			return nil, after, errNotStarted
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, after, ctx.Err()
		}
	}
}

// numbered gives the first most of lines their numbers; that of the last of all lines is count.
func numbered(kept [][]byte, count uint64, most int) []LogLine {
	seq := count - uint64(len(kept))
	if most > 0 && len(kept) > most {
		kept = kept[:most]
	}
	lines := make([]LogLine, len(kept))
	for i := range kept {
		seq++
		lines[i] = LogLine{seq, string(kept[i])}
	}
	return lines
}

// Log returns the last n lines that a service printed, or all that are kept if n is 0 or less; nil if
// there is no such service.
func (m *Manager) Log(name string, n int) [][]byte {
	u := m.byName[name]
	if u == nil || !m.prepared.Load() {
		return nil
	}
	return u.journal.ring.tail(n)
}
