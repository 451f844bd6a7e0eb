package service

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

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

// signal sends sig to the main process.
func (a *attempt) signal(sig syscall.Signal) error {
	err := a.main.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
