package service

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
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

// Freeze stops every service at a point where nothing half done is in its memory, and returns when all are
// stopped. On any error everything runs again.
//
// Looking at threads one after the other proves nothing by itself. So each is first seen asleep in a system
// call that is a rest; then all are frozen, and each must have been stopped where it was seen: in the same
// call with the same arguments, at the same place of its code and stack. A thread that was caught on its way
// through some call, a futex wake inside a library or a poll without waiting, is somewhere else. If one was
// caught, all are thawed and it begins anew, until ctx ends.
//
// For a runtime that moves work between threads there is one thing more: all threads may be where they sleep, and one of them
// has just been woken to go on with a goroutine that was halfway. For the first 100 ms Freeze therefore
// also wants a moment at which nobody had run since he was seen. That is more than busy services
// with timers of their own can give, so it is not insisted on.
//
// The error is a *FreezeError with the tasks that do not freeze, a *SettleError with those that
// never rest, or an *EscapeError with processes that left their service's cgroup and would go on running.
func (m *Manager) Freeze(ctx context.Context) error {
	if !m.prepared.Load() {
		return errNotStarted
	}
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
	// Services with Settle "try" are let off once they have spoilt so much time.
	indulgence := m.now().Add(settleTry)
	strictness := m.now().Add(settleStrict)
	for {
		l.strict = m.now().Before(strictness)
		caught, err := m.freezeOnce(ctx, l, m.now().Before(indulgence))
		if err != nil {
			return err
		}
		if len(caught) == 0 {
			return m.escapeError(l)
		}
		if err := sleep(ctx, m.jitter(settleFirst)); err != nil {
			return &SettleError{Tasks: caught, Err: err}
		}
	}
}

// settleStrict is how long Freeze wants all threads to have slept at the same moment.
const settleStrict = 100 * time.Millisecond

// freezeOnce tries to freeze at a moment of rest. It returns the threads that were not at rest; if there are none,
// all is frozen, else nothing is. Without wait, threads of services with Settle "try" do not count.
func (m *Manager) freezeOnce(ctx context.Context, l *looker, wait bool) ([]Task, error) {
	clear(l.seen)
	for _, p := range []phase{watching, again, frozen} {
		if p == again && (!l.strict || l.stillSlept()) {
			continue
		}
		if p == frozen {
			if err := m.stopAll(ctx, l); err != nil {
				return nil, err
			}
		}
		must, try, err := m.unsettled(l, p)
		if err != nil {
			return nil, err
		}
		if wait {
			must = append(must, try...)
		}
		switch {
		case len(must) > 0 && p == frozen:
			return must, m.freezer.set(ctx, false)
		case len(must) > 0:
			return must, nil
		case len(try) > 0 && !wait && p == frozen:
			m.logf("freeze: frozen at a bad moment: %s", listTasks(try))
		}
	}
	return nil, nil
}

// stopAll freezes, wherever the threads are.
func (m *Manager) stopAll(ctx context.Context, l *looker) error {
	err := m.freezer.set(ctx, true)
	if err != nil && ctx.Err() != nil {
		return &FreezeError{Tasks: m.unfrozen(l), Err: err}
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
	if !m.prepared.Load() {
		return errNotStarted
	}
	if err := m.freezer.set(ctx, false); err != nil {
		return fmt.Errorf("thaw: %w", err)
	}
	m.allowSpawns()
	return nil
}

// Frozen reads from the kernel whether all services are stopped. A process that is killed while frozen makes it
// false for the moment in which it ends.
func (m *Manager) Frozen() (bool, error) {
	if !m.prepared.Load() {
		return false, errNotStarted
	}
	return m.freezer.events.is("frozen")
}
