package service

import (
	"context"
	"sync"
	"time"
)

// spawnGate lets processes be started, or keeps them from it. A process that is started into a
// frozen cgroup stops before its exec, and the thread of ours that waits for that exec waits with
// it, holding the Reaper's lock.
type spawnGate struct {
	_       incomparable
	mu      sync.RWMutex // read: a start is under way
	frozen  bool
	held    bool
	thawed  bool          // since held: the snapshot is over, and what is left is to adjust
	changed chan struct{} // closed and replaced when frozen or held is cleared
}

// cause is who wants a process.
type cause int

const (
	byPlan       cause = iota // all services are started; waits while frozen
	byHand                    // waits until the snapshot is over too
	bySupervisor              // a restart that nobody asked for; waits while held too
)

func (g *spawnGate) open(c cause) bool {
	switch c {
	case byHand:
		return !g.frozen && (!g.held || g.thawed)
	case bySupervisor:
		return !g.frozen && !g.held
	}
	return !g.frozen
}

// beginSpawn waits until a process may be started; endSpawn must follow. It returns false if stop
// was closed first.
func (m *Manager) beginSpawn(c cause, stop <-chan struct{}) bool {
	for {
		g := &m.spawns
		g.mu.RLock()
		if g.open(c) {
			return true
		}
		changed := g.changed
		g.mu.RUnlock()
		select {
		case <-changed:
		case <-stop:
			return false
		}
	}
}

func (m *Manager) endSpawn() { m.spawns.mu.RUnlock() }

// blockSpawns returns once no process is between fork and exec, with starting blocked.
func (m *Manager) blockSpawns(ctx context.Context) error {
	for !m.spawns.mu.TryLock() {
		if err := sleep(ctx, 100*time.Microsecond); err != nil {
			return err
		}
	}
	m.spawns.frozen = true
	m.spawns.mu.Unlock()
	return nil
}

func (m *Manager) allowSpawns() {
	m.clearSpawns(func(g *spawnGate) { g.frozen, g.thawed = false, true })
}

func (m *Manager) clearSpawns(clear func(*spawnGate)) {
	m.spawns.mu.Lock()
	clear(&m.spawns)
	close(m.spawns.changed)
	m.spawns.changed = make(chan struct{})
	m.spawns.mu.Unlock()
}

func (m *Manager) frozenNow() bool {
	m.spawns.mu.RLock()
	frozen := m.spawns.frozen
	m.spawns.mu.RUnlock()
	return frozen
}

// quiet tells whether nothing should be started or asked that can wait.
func (m *Manager) quiet() bool { return !m.mayStart(bySupervisor) }

func (m *Manager) mayStart(c cause) bool {
	m.spawns.mu.RLock()
	open := m.spawns.open(c)
	m.spawns.mu.RUnlock()
	return open
}

// HoldRestarts keeps automatic restarts from happening until ReleaseRestarts: nothing is forked
// that nobody asked for. Call it before a quiesce, and ReleaseRestarts once the gate is open: a service that was
// killed while frozen must not be started by a resumed guest before it has its new identity.
func (m *Manager) HoldRestarts() {
	m.spawns.mu.Lock()
	if !m.spawns.held {
		m.spawns.held, m.spawns.thawed = true, false
	}
	m.spawns.mu.Unlock()
}

// ReleaseRestarts lets restarts that fell due since HoldRestarts begin.
func (m *Manager) ReleaseRestarts() { m.clearSpawns(func(g *spawnGate) { g.held = false }) }
