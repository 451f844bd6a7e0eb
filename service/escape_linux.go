package service

import (
	"bytes"
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
	return m.escaped(newLooker())
}

// escaped asks of every process in /proc but those of which it is known already where they are: those that l has just seen
// stopped, which it found in the cgroups of services, and the kernel's threads. What is asked is three files each.
func (m *Manager) escaped(l *looker) ([]Escape, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("read /proc: %w", err)
	}
	f := family{l: l, stats: make(map[int]taskStat)}
	kernel := f.kernelThreads()
	var found []Escape
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil || l.seen[pid].stopped || kernel[pid] {
			continue
		}
		if e := m.escapee(pid, &f); e != nil {
			found = append(found, *e)
		}
	}
	return found, nil
}

// family is what is known of processes, each read once.
type family struct {
	_     incomparable
	l     *looker
	stats map[int]taskStat
}

func (f *family) stat(pid int) (taskStat, bool) {
	s, ok := f.stats[pid]
	if !ok {
		data, err := f.l.read(pid, "stat")
		if err == nil {
			s, err = parseStat(data)
		}
		if ok = err == nil; ok {
			f.stats[pid] = s
		}
	}
	return s, ok
}

// kernelThreads are the children of kthreadd, of which a guest has a hundred: one file (CONFIG_PROC_CHILDREN). None
// of them descends from us, whatever else it may be. Without the file, and where process 2 is another, they are looked at
// one by one.
func (f *family) kernelThreads() map[int]bool {
	const kthreadd = 2
	s, ok := f.stat(kthreadd)
	if !ok || s.flags&pfKthread == 0 {
		return nil
	}
	list, _ := readKernel("/proc/2/task/2/children")
	kernel := make(map[int]bool)
	for _, word := range bytes.Fields(list) {
		if pid, err := strconv.Atoi(string(word)); err == nil {
			kernel[pid] = true
		}
	}
	return kernel
}

// escapee is nil for a process that is where it belongs, or none of ours.
func (m *Manager) escapee(pid int, f *family) *Escape {
	s, ok := f.stat(pid)
	if !ok || s.state == 'Z' || s.flags&pfKthread != 0 || !m.descends(pid, f) {
		return nil
	}
	path := processCgroup(pid)
	if path == "" || within(m.base, path) || within(m.hooksBase(), path) {
		return nil
	}
	return &Escape{PID: pid, Comm: s.comm, Cgroup: path}
}

// descends tells whether pid descends from us, and not through a child that is somebody else's.
func (m *Manager) descends(pid int, f *family) bool {
	self := os.Getpid()
	for depth := 0; depth < 1000; depth++ {
		s, ok := f.stat(pid)
		if !ok {
			return false
		}
		if s.ppid == self {
			return m.isService(pid) || !m.o.Reaper.registered(pid)
		}
		pid = s.ppid
	}
	return false
}

// isService tells whether pid is the main process of a service.
func (m *Manager) isService(pid int) bool {
	for _, u := range m.units {
		if u.status().PID == pid {
			return true
		}
	}
	return false
}

func (m *Manager) hooksBase() string { return strings.TrimSuffix(m.base, "services") + "hooks" }

func within(base, path string) bool {
	return path == base || strings.HasPrefix(path, base+"/")
}

func (m *Manager) escapeError(l *looker) error {
	found, err := m.escaped(l)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return &EscapeError{Processes: found}
	}
	return nil
}
