package service

import (
	"context"
	"errors"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
	"rouse/internal/guard"
)

// unit is one service: what it is, and what lasts over its restarts.
type unit struct {
	m       *Manager
	spec    Spec
	who     account
	cg      *cgroup
	hookMu  sync.Mutex // one hook at a time
	hookCg  *cgroup
	journal *journal
	notify  *notifier
	answers chan message // to notify hooks; nil if there is none

	mu      sync.Mutex
	st      Status
	run     *run     // from start to stop or final failure; kept when over
	attempt *attempt // the process of now, nil if none
	held    []*held  // descriptors for the next process
}

// run is the time in which a service is wanted.
type run struct {
	stop     chan struct{} // closed to end it
	stopOnce sync.Once
	cause    cause           // of its first process
	kill     context.Context // ended when patience with the stop is over
	killNow  context.CancelFunc
	ready    chan struct{} // closed when ready for the first time
	late     chan error    // capacity 1: not ready in time, the first time
	done     chan struct{} // closed when it is over
	err      error         // before done is closed: why it failed
}

func newRun() *run {
	r := &run{stop: make(chan struct{}), ready: make(chan struct{}), late: make(chan error, 1), done: make(chan struct{})}
	r.kill, r.killNow = context.WithCancel(context.Background())
	return r
}

func (r *run) end() { r.stopOnce.Do(func() { close(r.stop) }) }

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// awaitClosed waits until c is closed, but no longer than d, and tells whether it is.
func awaitClosed(d time.Duration, c <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c:
		return true
	case <-t.C:
		return false
	}
}

// attempt is one life of the service's process.
type attempt struct {
	main   *Process
	events chan *message // from the notify socket
	found  chan struct{} // readiness found by looking
	gone   chan struct{} // closed when it is over

	sick      chan error // from the health check
	readyPipe *os.File   // for Ready "fd"
}

// ending is how an attempt ended.
type ending struct {
	_         incomparable
	err       error // could not start, or was ended by us for this reason
	permanent bool  // starting again cannot help
	status    unix.WaitStatus
	known     bool // status is valid
}

func (e *ending) String() string {
	switch {
	case e.err != nil:
		return e.err.Error()
	case !e.known:
		return "ended, its status went to its parent"
	}
	return describe(e.status)
}

func (e *ending) code() int {
	if !e.known {
		return -1
	}
	return exitCode(e.status)
}

func (e *ending) good() bool { return e.err == nil && e.known && e.code() == 0 }

func (u *unit) prepare() error {
	name := u.spec.Name
	var err error
	if u.cg, err = makeCgroup(u.m.services.path + "/" + name); err != nil {
		return err
	}
	if u.hookCg, err = makeCgroup(u.m.hooks.path + "/" + name); err != nil {
		return err
	}
	if u.journal, err = newJournal(u.m.o.LogBytes); err != nil {
		return err
	}
	if output := u.m.o.Output; output != nil {
		u.journal.followers.Add(1)
		go guard.Do(func() { u.journal.follow(func(line []byte) { output(name, line) }) })
	}
	if u.spec.LogFile.Path != "" {
		u.journal.followers.Add(1)
		go guard.Do(u.follow)
	}
	// As its owner the service may open /dev/stdout anew, which many images log to.
	if err := u.journal.w.Chown(int(u.who.uid), int(u.who.gid)); err != nil {
		return about("log pipe", "", err)
	}
	if err := u.openSockets(); err != nil {
		return err
	}
	if !u.awaitsAnswers() && u.spec.Ready.Kind != "notify" && u.spec.Watchdog == 0 && u.spec.FDStore == 0 {
		return nil
	}
	if u.notify, err = listenNotify(u.m.o.RunDir+"/notify/"+name, &u.who); err != nil {
		return err
	}
	go guard.Do(func() { u.notify.serve(u.deliver) })
	return nil
}

func (u *unit) close() error {
	if u.notify != nil {
		u.notify.close()
	}
	if u.journal != nil {
		u.journal.close()
	}
	u.closeSockets()
	err := errors.Join(u.cg.remove(), u.hookCg.remove())
	u.notify, u.journal, u.cg, u.hookCg = nil, nil, nil, nil
	return err
}

// start begins a run unless one is under way, and waits until it is ready. c says what its
// first process may have to wait for.
func (u *unit) start(ctx context.Context, c cause) error {
	u.mu.Lock()
	r := u.run
	if r == nil || closed(r.done) {
		r = newRun()
		r.cause = c
		u.run = r
		go guard.Do(func() { u.supervise(r) })
	}
	u.mu.Unlock()
	select {
	case <-r.ready:
		return nil
	case err := <-r.late:
		return err
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("not ready: %s: %w", u.status().why(), ctx.Err())
	}
}

func (s Status) why() string {
	if s.Reason != "" {
		return s.State + ", " + s.Reason
	}
	return s.State
}

// stop ends the run. When ctx ends first, everything of the service is killed.
func (u *unit) stop(ctx context.Context) error {
	u.mu.Lock()
	r := u.run
	u.mu.Unlock()
	if r == nil {
		return nil
	}
	r.end()
	select {
	case <-r.done:
	case <-ctx.Done():
		r.killNow()
		return r.gone(buryTimeout)
	}
	return nil
}

// gone waits for the end of the run after a kill. A process that hangs in the kernel must not keep
// the guest from powering off.
func (r *run) gone(patience time.Duration) error {
	if awaitClosed(2*patience, r.done) { // for the main process, and what it left behind
		return nil
	}
	return errors.New("killed, but still there")
}

func (u *unit) status() Status {
	u.mu.Lock()
	st := u.st
	u.mu.Unlock()
	if u.m.prepared.Load() {
		st.Dropped = u.journal.dropped.Load()
	}
	return st
}

// change alters the status under the lock and tells OnChange of it.
func (u *unit) change(alter func(*Status)) {
	u.mu.Lock()
	before := u.st.State
	alter(&u.st)
	if u.st.State == before {
		u.mu.Unlock()
		return
	}
	u.st.Since = u.m.now()
	st := u.st
	u.mu.Unlock()
	if u.m.o.OnChange != nil {
		u.m.o.OnChange(st)
	}
}

// become is the change that is made most.
func (u *unit) become(state string, ready bool, reason string) {
	u.change(func(s *Status) { s.State, s.Ready, s.Reason = state, ready, reason })
}

// supervise keeps the service alive as its restart policy says until r is stopped.
func (u *unit) supervise(r *run) {
	defer close(r.done)
	defer r.killNow()
	var p policy
	for c := r.cause; ; c = bySupervisor {
		if !u.m.beginSpawn(c, r.stop) {
			u.become(Stopped, false, "")
			return
		}
		began := u.m.now()
		a, err := u.spawn()
		u.m.endSpawn()
		end := ending{err: err, permanent: permanent(err)}
		if err == nil {
			end = u.watch(r, a)
		}
		u.bury(&end)
		if closed(r.stop) {
			u.become(Stopped, false, end.String())
			return
		}
		delay, again, why := p.next(&u.spec, &end, began, u.m.now())
		if !again {
			u.conclude(r, &end, why)
			return
		}
		u.log(end.String() + "; starting again in " + delay.String())
		u.change(func(s *Status) { s.State = Backoff; s.Restarts++ })
		awaitClosed(u.m.jitter(delay), r.stop)
	}
}

// conclude records the end of a service that will not be started again.
func (u *unit) conclude(r *run, end *ending, why string) {
	if end.good() && why == "" {
		if u.spec.Oneshot {
			close(r.ready)
		}
		u.become(Done, u.spec.Oneshot, "")
	} else {
		r.err = end.err
		text := end.String()
		if why != "" {
			text += "; " + why
		}
		if why != "" || r.err == nil {
			r.err = errors.New(text)
		}
		u.log("failed: " + text)
		u.become(Failed, false, text)
	}
	if u.spec.OnExit != "none" && u.m.o.Ended != nil {
		code := end.code()
		if !end.known && end.err != nil {
			code = notExecuted
		}
		u.m.o.Ended(u.spec.Name, u.spec.OnExit, code)
	}
}

// notExecuted is the status by which shells say that there was no such program (POSIX.1-2017, 2.8.2).
const notExecuted = 127

// bury ends what the main process left in the cgroup, so that a new life starts alone.
func (u *unit) bury(end *ending) {
	u.mu.Lock()
	u.attempt = nil
	u.mu.Unlock()
	kills := u.cg.oomKills()
	u.change(func(s *Status) {
		s.PID, s.Ready, s.ExitCode = 0, false, end.code()
		s.Reason = end.String()
		s.OOMKills += kills
	})
	if kills > 0 {
		u.log("out of memory: the kernel killed " + strconv.Itoa(kills) + " of its processes")
		u.cg.killed = true // so that its counters start at 0 again
	}
	ctx, cancel := context.WithTimeout(context.Background(), buryTimeout)
	defer cancel()
	if err := u.cg.reap(ctx); err != nil {
		u.log("processes left behind: " + err.Error())
	}
}

// buryTimeout bounds the wait for killed processes, which can hang in the kernel for as long as a
// dead disk or network file system makes them.
const buryTimeout = 5 * time.Second

// permanent tells whether an error of fork and exec would come again.
func permanent(err error) bool {
	var child *shimError
	if errors.As(err, &child) {
		return true
	}
	for _, e := range []error{unix.ENOENT, unix.EACCES, unix.ENOEXEC, unix.ENOTDIR, unix.EPERM, unix.EINVAL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// spawn starts the service's process.
func (u *unit) spawn() (*attempt, error) {
	u.change(func(s *Status) { s.State, s.Ready, s.Reason, s.Text = Starting, false, "", "" })
	if err := u.cg.apply(&u.spec.Limits); err != nil {
		return nil, err
	}
	files, listen := u.listenFiles()
	cmd, err := u.command(u.spec.Exec, u.cg, append(u.environ(), listen...))
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = u.journal.w, u.journal.w
	u.drain()
	a := &attempt{events: make(chan *message), found: make(chan struct{}), gone: make(chan struct{}), sick: make(chan error)}
	u.mu.Lock()
	u.attempt = a // before the start: a quick service says READY=1 while we still wait for its exec
	u.mu.Unlock()
	p, err := u.launch(a, cmd, files)
	if err != nil {
		close(a.gone)
		return nil, err
	}
	u.mu.Lock()
	a.main, u.st.PID = p, p.PID()
	u.mu.Unlock()
	return a, nil
}

// drain passes over what an earlier life of the service said too late.
func (u *unit) drain() {
	if u.notify == nil {
		return
	}
	awaitClosed(catchUpTimeout, u.notify.mark())
}

// launch starts cmd, through the shim if it needs one, and returns when the service's program was executed.
func (u *unit) launch(a *attempt, cmd *Command, files []*os.File) (*Process, error) {
	listen := len(files)
	if u.spec.Ready.Kind != "fd" {
		return u.execute(cmd, files, listen)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, about("readiness pipe", "", err)
	}
	defer w.Close()
	p, err := u.execute(cmd, append(files, w), listen)
	if err != nil {
		r.Close()
		return nil, err
	}
	a.readyPipe = r
	return p, nil
}

// execute starts cmd with files from descriptor 3 on, of which the first listen are for sd_listen_fds.
func (u *unit) execute(cmd *Command, files []*os.File, listen int) (*Process, error) {
	if listen == 0 && !u.spec.Confine.needed() {
		cmd.ExtraFiles = files
		return u.m.o.Reaper.Start(cmd)
	}
	status, read, err := u.withShim(cmd, files, listen)
	if err != nil {
		return nil, err
	}
	defer read.Close()
	p, err := u.m.o.Reaper.Start(cmd)
	status.Close()
	if err != nil {
		return nil, err
	}
	if err := awaitShim(read); err != nil {
		return nil, errors.Join(err, u.cg.kill())
	}
	return p, nil
}

func (u *unit) log(text string) { u.m.logf("service %s: %s", u.spec.Name, text) }

// logError tells of an error, if there is one.
func (u *unit) logError(err error) {
	if err != nil {
		u.log(err.Error())
	}
}

// environ is what the service finds in its environment besides its own settings.
func (u *unit) environ() []string {
	var env []string
	if u.notify != nil {
		env = append(env, "NOTIFY_SOCKET="+u.notify.path)
	}
	if u.spec.Watchdog > 0 {
		env = append(env, "WATCHDOG_USEC="+strconv.FormatInt(u.spec.Watchdog.Microseconds(), 10))
	}
	return env
}

// deliver takes a message that arrived at the service's notify socket. The sender must be of the
// service; one that has ended is known by its right to enter the socket's folder.
func (u *unit) deliver(pid int, m message, fds []int) {
	if in := processCgroup(pid); in != "" && serviceOfPath(u.m.base, in) != u.spec.Name {
		u.log("notification by pid " + strconv.Itoa(pid) + " of " + in + " passed over")
		closeFDs(fds)
		return
	}
	u.descriptors(m, fds)
	if m.hasStatus {
		u.change(func(s *Status) { s.Text = m.status })
	}
	u.answer(m)
	u.mu.Lock()
	a := u.attempt
	u.mu.Unlock()
	if a == nil {
		return
	}
	select {
	case a.events <- &m:
	case <-a.gone:
	}
}

// descriptors takes the file descriptors of a message. With BARRIER=1 the sender waits until its end of a
// pipe is closed: closing it here, after all messages before were delivered, is the answer.
func (u *unit) descriptors(m message, fds []int) {
	if m.fdRemove {
		u.unstore(m.fdName)
	}
	if m.fdStore && !m.barrier {
		u.store(m.fdName, fds)
		return
	}
	closeFDs(fds)
}

// signal sends sig to the main process.
func (a *attempt) signal(sig syscall.Signal) error {
	err := a.main.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
