package service

import (
	"os"
	"strconv"
	"strings"

	"rouse/internal/fmt"
)

// Escape is a process that came from here but is in none of our cgroups.
type Escape struct {
	PID    int    `json:"pid"`
	Comm   string `json:"comm"`
	Cgroup string `json:"cgroup"`
}

// EscapeError names processes that freezing the services does not stop.
type EscapeError struct{ Processes []Escape }

func (e *EscapeError) Error() string {
	var b strings.Builder
	b.WriteString("processes outside of their service's cgroup:")
	for i, p := range e.Processes {
		if i == maxNamed {
			fmt.Fprintf(&b, " and %d more", len(e.Processes)-i)
			break
		}
		fmt.Fprintf(&b, " pid %d (%s) in %s;", p.PID, p.Comm, p.Cgroup)
	}
	return strings.TrimSuffix(b.String(), ";")
}

// Escaped looks for processes that a service started and that have been moved to another cgroup, by
// themselves (root can) or by a container runtime. A double fork stays in the cgroup and is no
// escape. All orphans come to us, so whatever descends from us belongs to a service, a hook, or a process
// that was started through the Reaper by somebody else.
func (m *Manager) Escaped() ([]Escape, error) {
	if !m.prepared.Load() {
		return nil, nil
	}
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("read /proc: %w", err)
	}
	stats := make(map[int]taskStat, len(names))
	l := newLooker()
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		if data, err := l.read(pid, "stat"); err == nil {
			if s, err := parseStat(data); err == nil {
				stats[pid] = s
			}
		}
	}
	return m.escapees(stats), nil
}

func (m *Manager) escapees(stats map[int]taskStat) []Escape {
	ours := m.processes()
	var found []Escape
	for pid, s := range stats {
		if s.state == 'Z' || s.flags&pfKthread != 0 || !m.descends(pid, stats, ours) {
			continue
		}
		path := processCgroup(pid)
		if path == "" || within(m.base, path) || within(m.hooksBase(), path) {
			continue
		}
		found = append(found, Escape{PID: pid, Comm: s.comm, Cgroup: path})
	}
	return found
}

// descends tells whether pid descends from us, and not through a child that is somebody else's.
func (m *Manager) descends(pid int, stats map[int]taskStat, ours map[int]bool) bool {
	self := os.Getpid()
	for depth := 0; depth < 1000; depth++ {
		s, ok := stats[pid]
		if !ok {
			return false
		}
		if s.ppid == self {
			return ours[pid] || !m.o.Reaper.registered(pid)
		}
		pid = s.ppid
	}
	return false
}

// processes returns the main processes of all services.
func (m *Manager) processes() map[int]bool {
	all := make(map[int]bool)
	for _, u := range m.units {
		if st := u.status(); st.PID != 0 {
			all[st.PID] = true
		}
	}
	return all
}

func (m *Manager) hooksBase() string { return strings.TrimSuffix(m.base, "services") + "hooks" }

func within(base, path string) bool {
	return path == base || strings.HasPrefix(path, base+"/")
}

func (m *Manager) escapeError() error {
	found, err := m.Escaped()
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return &EscapeError{Processes: found}
	}
	return nil
}
