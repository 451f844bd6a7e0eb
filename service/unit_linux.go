package service

import (
	"errors"
	"strconv"
	"sync"

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
