package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// freezer stops and starts everything below one cgroup. Its descriptors stay open: to thaw is one
// write and one read, with nothing to look up and nothing to allocate in a guest that has just been
// resumed with cold memory.
type freezer struct {
	path    string
	control *os.File
	events  *events
}

func openFreezer(path string) (*freezer, error) {
	control, err := os.OpenFile(filepath.Join(path, "cgroup.freeze"), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("freezer (cgroup v2, Linux 5.2): %w", err)
	}
	ev, err := openEvents(path)
	if err != nil {
		control.Close()
		return nil, err
	}
	return &freezer{path: path, control: control, events: ev}, nil
}

func (f *freezer) close() {
	f.control.Close()
	f.events.close()
}

var freezeOn, freezeOff = []byte("1"), []byte("0")

func (f *freezer) set(ctx context.Context, frozen bool) error {
	value := freezeOff
	if frozen {
		value = freezeOn
	}
	if _, err := unix.Pwrite(int(f.control.Fd()), value, 0); err != nil {
		return fmt.Errorf("write %s: %w", f.control.Name(), err)
	}
	return f.events.wait(ctx, "frozen", frozen)
}

// Freeze stops every service and returns when all are stopped. Then it looks where each thread
// was stopped: if one of a service that requires settling was in the middle of something, all are thawed
// and it tries again, until ctx ends. On any error everything runs again.
//
// The error is a *FreezeError with the tasks that do not freeze, a *SettleError with those that
// never rest, or an *EscapeError with processes that left their service's cgroup and would go on running.
func (m *Manager) Freeze(ctx context.Context) error {
	if err := m.blockSpawns(ctx); err != nil {
		return fmt.Errorf("freeze: a service is still being started: %w", err)
	}
	err := m.freezeAtRest(ctx)
	if err != nil {
		err = errors.Join(err, m.thaw(context.WithoutCancel(ctx)))
	}
	return err
}

func (m *Manager) freezeAtRest(ctx context.Context) error {
	l := newLooker()
	for try := 0; ; try++ {
		if err := m.freezer.set(ctx, true); err != nil {
			if ctx.Err() != nil {
				return &FreezeError{Tasks: m.unfrozen(l), Err: err}
			}
			return err
		}
		must, tried, err := m.unsettled(l, true)
		if err != nil {
			return err
		}
		if len(must) == 0 && (len(tried) == 0 || try >= freezeTries) {
			if len(tried) > 0 {
				m.logf("freeze: frozen at a bad moment: %s", listTasks(tried))
			}
			return m.escapeError()
		}
		if err := m.freezer.set(ctx, false); err != nil {
			return err
		}
		if err := m.betweenFreezes(ctx, append(must, tried...)); err != nil {
			return err
		}
	}
}

// freezeTries is how often a service with Settle "try" may spoil a freeze.
const freezeTries = 20

// settleBetween is how long one attempt to freeze waits for a good moment before it just tries: a
// program of many busy threads may have none that lasts long enough for us to see it.
const settleBetween = 5 * time.Millisecond

// betweenFreezes lets threads that were caught go on for a moment, and waits for a good one.
func (m *Manager) betweenFreezes(ctx context.Context, caught []Task) error {
	if err := sleep(ctx, m.jitter(settleFirst)); err != nil {
		return &SettleError{Tasks: caught, Err: err}
	}
	short, cancel := context.WithTimeout(ctx, settleBetween)
	defer cancel()
	err := m.Settle(short)
	if ctx.Err() != nil {
		return &SettleError{Tasks: caught, Err: ctx.Err()}
	}
	var restless *SettleError
	if errors.As(err, &restless) {
		return nil
	}
	return err
}

func (m *Manager) unfrozen(l *looker) []Task {
	var tasks []Task
	for _, u := range m.units {
		tasks = append(tasks, l.unfrozen(u.spec.Name, u.cg.path)...)
	}
	return tasks
}

// Thaw lets all services go on. It is a write, and a read or more until the kernel says so; ctx
// bounds that. Restarts that fell due meanwhile begin now, unless HoldRestarts says otherwise.
func (m *Manager) Thaw(ctx context.Context) error { return m.thaw(ctx) }

func (m *Manager) thaw(ctx context.Context) error {
	if m.freezer == nil {
		return errNotStarted
	}
	if err := m.freezer.set(ctx, false); err != nil {
		return fmt.Errorf("thaw: %w", err)
	}
	m.allowSpawns()
	return nil
}

// Frozen reads from the kernel whether all services are stopped.
func (m *Manager) Frozen() (bool, error) {
	if m.freezer == nil {
		return false, errNotStarted
	}
	return m.freezer.events.is("frozen")
}
