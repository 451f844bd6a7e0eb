package service

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rouse/internal/fmt"
	"rouse/internal/guard"
)

// Options are what a Manager needs from outside.
type Options struct {
	// CgroupRoot is a directory of a cgroup v2 file system in which the Manager makes "services" and
	// "hooks". Without one Start fails: unfrozen services would make a snapshot unsafe.
	CgroupRoot string
	Reaper     *Reaper
	Log        func(format string, args ...any)  // may be nil
	Output     func(service string, line []byte) // each line that a service prints; may be nil, may be slow
	OnChange   func(Status)                      // after each change of a state; must not block; may be nil
	// Ended is told of the end of a service with an OnExit, which is passed on as action. code is its exit status, 128 + signal
	// if it was killed, and, as shells have it, 127 if it was never executed. It must not block; may be nil.
	Ended func(service, action string, code int)
	// NoTrace takes from services, as far as they run as root, the right to trace PID 1 and to read its memory: CAP_SYS_PTRACE
	// leaves our bounding set for good. It is left to all if the Capabilities of one ask for it.
	NoTrace   bool
	RunDir    string                          // for notify sockets; "/run/rouse" if empty
	Etc       fs.FS                           // holds passwd and group; /etc if nil
	HookDir   string                          // executables that are called around every snapshot; none if empty
	Hooks     Spec                            // its hooks are those of the machine as a whole; they run as root in /
	LogBytes  int                             // kept per service; DefaultLogBytes if 0
	Listening func(pid int, port uint16) bool // instead of /proc/net/tcp for Ready "port"; may be nil
}

// Manager runs a set of services. All methods may be called at any time from any goroutine.
type Manager struct {
	o      Options
	units  []*unit // in start order
	dropin *unit   // stands for Options.HookDir
	byName map[string]*unit

	prepareMu sync.Mutex
	prepared  atomic.Bool // what follows, and what the units get by prepare, may be read
	services  *cgroup     // parent of all services' cgroups: what Freeze freezes
	hooks     *cgroup     // parent of the hooks' cgroups, which run on while services are frozen
	freezer   *freezer
	base      string // path of services as /proc/PID/cgroup prints it

	spawns spawnGate

	now    func() time.Time
	jitter func(time.Duration) time.Duration
}

var errNotStarted = errors.New("services were not started")

// New checks specs and plans the order. It starts nothing and changes nothing in the system.
func New(o Options, specs []Spec) (*Manager, error) {
	if o.Etc == nil {
		o.Etc = os.DirFS("/etc")
	}
	setString(&o.RunDir, "/run/rouse")
	if o.LogBytes == 0 {
		o.LogBytes = DefaultLogBytes
	}
	plan, err := order(specs)
	for i := range specs {
		err = errors.Join(err, specs[i].check())
	}
	if err != nil {
		return nil, err
	}
	m := &Manager{o: o, byName: make(map[string]*unit), now: time.Now, jitter: jitter}
	m.spawns.changed = make(chan struct{})
	m.dropin = &unit{m: m, spec: o.Hooks, who: account{name: "root", home: "/root"}}
	m.dropin.spec.Name, m.dropin.spec.Dir = dropinName, "/"
	if err := m.dropin.checkHooks(); err != nil {
		return nil, err
	}
	for _, i := range plan {
		u := &unit{m: m, spec: specs[i]}
		m.units = append(m.units, u)
		if err := u.resolve(); err != nil {
			return nil, err
		}
		m.byName[u.spec.Name] = u
	}
	return m, nil
}

// resolve is what New does for each service.
func (u *unit) resolve() (err error) {
	s := &u.spec
	s.setDefaults()
	if u.who, err = lookupAccount(u.m.o.Etc, s.User, s.Group, s.Groups...); err != nil {
		return about("service", s.Name, err)
	}
	u.st.Name, u.st.State, u.st.Since = s.Name, Waiting, u.m.now()
	return u.checkHooks()
}

// jitter returns d changed by up to a quarter either way, so that what failed together does not
// come back together. Nothing secret depends on this generator, which clones share.
func jitter(d time.Duration) time.Duration {
	if d < 4 {
		return d
	}
	return d - d/4 + rand.N(d/2)
}

func (m *Manager) logf(format string, args ...any) {
	if m.o.Log != nil {
		m.o.Log(format, args...)
	}
}

// prepare makes the cgroups and all that a service needs besides its process, once.
func (m *Manager) prepare() error {
	m.prepareMu.Lock()
	defer m.prepareMu.Unlock()
	if m.prepared.Load() {
		return nil
	}
	if m.o.CgroupRoot == "" {
		return errors.New("start services: no cgroup v2 hierarchy; without it nothing can be frozen for a snapshot")
	}
	if m.o.Reaper == nil {
		return errors.New("start services: no Reaper")
	}
	if err := checkCgroup2(m.o.CgroupRoot); err != nil {
		return err
	}
	if err := m.acquire(); err != nil {
		return errors.Join(err, m.release())
	}
	m.prepared.Store(true)
	return nil
}

func (m *Manager) acquire() error {
	var err error
	if m.services, err = makeCgroup(m.o.CgroupRoot + "/services"); err != nil {
		return err
	}
	if m.hooks, err = makeCgroup(m.o.CgroupRoot + "/hooks"); err != nil {
		return err
	}
	if err := m.enableControllers(); err != nil {
		return err
	}
	m.shield()
	m.base = cgroupPath(m.services.path)
	for _, u := range m.units {
		if err := u.prepare(); err != nil {
			return about("service", u.spec.Name, err)
		}
	}
	if m.dropin.hookCg, err = makeCgroup(m.hooks.path + "/" + dropinName); err != nil {
		return err
	}
	m.freezer, err = openFreezer(m.services.path)
	return err
}

// release gives back what acquire has got so far.
func (m *Manager) release() error {
	var errs []error
	if m.freezer != nil {
		m.freezer.close()
	}
	for _, u := range m.units {
		errs = append(errs, u.close())
	}
	errs = append(errs, m.dropin.close(), m.hooks.remove(), m.services.remove())
	m.freezer, m.hooks, m.services = nil, nil, nil
	return errors.Join(errs...)
}

// cgroupPath turns a path below a cgroup2 mount into the form of /proc/PID/cgroup, which is relative to the
// root of the caller's cgroup namespace: the part below the mount point.
func cgroupPath(path string) string {
	best, result := 0, ""
	eachLine("/proc/self/mountinfo", func(line string) {
		// id parent dev root mountpoint options... - type source superoptions
		left, right, _ := strings.Cut(line, " - ")
		f := strings.Fields(left)
		if len(f) < 5 || !strings.HasPrefix(right, "cgroup2 ") {
			return
		}
		root, at := f[3], f[4]
		if rest, ok := strings.CutPrefix(path, at); ok && len(at) > best && (rest == "" || rest[0] == '/') {
			best, result = len(at), filepath.Join(root, rest)
		}
	})
	return result
}

// Start starts all services, each as soon as those that it comes after are ready, and waits until
// all are ready. The error names each service that is not and why; the others go on.
func (m *Manager) Start(ctx context.Context) error {
	if err := m.prepare(); err != nil {
		return err
	}
	results := make(map[string]*result, len(m.units))
	for _, u := range m.units {
		results[u.spec.Name] = &result{done: make(chan struct{})}
	}
	for _, u := range m.units {
		go guard.Do(func() {
			r := results[u.spec.Name]
			defer close(r.done)
			for _, dep := range u.spec.After {
				<-results[dep].done
				if results[dep].err != nil {
					r.err = fmt.Errorf("service %s: not started, for %s is not ready", u.spec.Name, dep)
					return
				}
			}
			if err := u.start(ctx, byPlan); err != nil {
				r.err = about("service", u.spec.Name, err)
			}
		})
	}
	var errs []error
	for _, u := range m.units {
		r := results[u.spec.Name]
		<-r.done
		errs = append(errs, r.err)
	}
	return errors.Join(errs...)
}

type result struct {
	_    incomparable
	done chan struct{}
	err  error
}

// Stop stops all services, each after those that come after it. One that does not end within its
// StopTimeout, or when ctx ends, is killed with all its children. Frozen services are thawed first;
// they could not handle the signal otherwise.
func (m *Manager) Stop(ctx context.Context) error {
	if !m.prepared.Load() {
		return nil
	}
	m.HoldRestarts()
	if err := m.thaw(ctx); err != nil {
		return err
	}
	stopped := make(map[string]chan struct{}, len(m.units))
	for _, u := range m.units {
		stopped[u.spec.Name] = make(chan struct{})
	}
	errs := make([]error, len(m.units))
	for i, u := range m.units {
		go guard.Do(func() {
			defer close(stopped[u.spec.Name])
			for _, other := range m.units[i+1:] {
				if contains(other.spec.After, u.spec.Name) {
					<-stopped[other.spec.Name]
				}
			}
			if err := u.stop(ctx); err != nil {
				errs[i] = about("service", u.spec.Name, err)
			}
		})
	}
	for _, u := range m.units {
		<-stopped[u.spec.Name]
	}
	return errors.Join(errs...)
}

// Close removes the cgroups and closes the logs. All services must have been stopped, and no other method may be
// running or called later.
func (m *Manager) Close() error {
	m.prepareMu.Lock()
	defer m.prepareMu.Unlock()
	if !m.prepared.Swap(false) {
		return nil
	}
	return m.release()
}

// Status returns the state of every service in start order.
func (m *Manager) Status() []Status {
	all := make([]Status, len(m.units))
	for i, u := range m.units {
		all[i] = u.status()
	}
	return all
}

// ServiceOf returns the name of the service whose cgroup holds process pid, or "".
func (m *Manager) ServiceOf(pid int) string {
	if !m.prepared.Load() {
		return ""
	}
	return serviceOfPath(m.base, processCgroup(pid))
}

// processCgroup returns the cgroup v2 path of a process, "" if it is gone.
func processCgroup(pid int) string {
	found := ""
	eachLine("/proc/"+strconv.Itoa(pid)+"/cgroup", func(line string) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			found = strings.TrimSuffix(path, " (deleted)")
		}
	})
	return found
}
