package sysgenid

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options of Serve. The zero value is right for PID 1.
type Options struct {
	// Mode forces a way to serve; ModeAuto takes the first that works and is safe
	// of passthrough, page cache and file, and logs why a better one did not.
	// Forced passthrough is served, with a warning, also where the kernel lets
	// whoever opens the device for writing map the page writable (seen on 6.12
	// and 6.18): for guests in which all users trust each other.
	Mode Mode
	// Log takes what an operator should know. It may be called from any
	// goroutine; nil drops it.
	Log func(format string, args ...any)
	// OnChange is called after a tracked watcher came, went or acknowledged, and
	// after a bump. It is called from the goroutine that serves and must not
	// block, nor touch the device.
	OnChange func()
	// MaxPerUID limits the open file descriptions of each uid but 0; an open
	// beyond it fails with EMFILE. 0 is 4096.
	MaxPerUID int
	// Proc is where procfs is mounted; "" is /proc.
	Proc string
	// Device is FUSE's device; "" is /dev/fuse.
	Device string
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	if o.OnChange == nil {
		o.OnChange = func() {}
	}
	if o.MaxPerUID == 0 {
		o.MaxPerUID = 4096
	}
	if o.Proc == "" {
		o.Proc = "/proc"
	}
	if o.Device == "" {
		o.Device = "/dev/fuse"
	}
	return o
}

// Server serves the device at one path. Its methods may be used concurrently.
// A process must not read a mapping of a device that it serves itself, nor give
// a descriptor of it to Go's poller: the thread that has to answer might be the
// one that waits.
type Server struct {
	path    string
	options Options
	started int64 // Unix seconds: the file's times
	core    *core
	base    *baseFile
	memory  *page // the memfd; nil if passthrough is not wanted or impossible

	// bumps serialises bumps, so that the page never goes back. Faults,
	// acknowledgements and all other calls go on while it is held.
	bumps sync.Mutex

	mu     sync.Mutex // guards conn, mode and closed; nothing waits while it is held
	conn   *conn      // nil in ModeFile, and while a dead connection is being replaced
	mode   Mode
	closed bool
	stop   chan struct{} // closed by Close
	done   chan struct{} // closed when the last goroutine that serves has ended
}

// Serve puts the device at path, over a plain file that is made there if it is
// missing. ErrNative: a kernel driver has it. EBUSY: another server has it.
func Serve(path string, o Options) (*Server, error) {
	base, err := openBase(path)
	if err != nil {
		return nil, err
	}
	s := &Server{
		path: path, options: o.withDefaults(), started: time.Now().Unix(), base: base,
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	s.core = newCore(nil, s.options.MaxPerUID)
	s.core.counter.Store(base.load())
	if err := s.start(); err != nil {
		return nil, errors.Join(err, base.remove())
	}
	return s, nil
}

func (s *Server) log(format string, args ...any) { s.options.Log(format, args...) }

func (s *Server) changed(yes bool) {
	if yes {
		s.options.OnChange()
	}
}

// ladder lists the ways to try for a wanted mode, best first.
func ladder(m Mode) []Mode {
	if m == ModeAuto {
		return []Mode{ModePassthrough, ModePageCache, ModeFile}
	}
	return []Mode{m}
}

// start tries the ways in turn.
func (s *Server) start() error {
	var errs []error
	for _, mode := range ladder(s.options.Mode) {
		err := s.try(mode)
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("serve %s by %s: %w", s.path, mode, err))
		s.log("sysgenid: %v", errs[len(errs)-1])
	}
	return errors.Join(errs...)
}

// try serves in exactly the given mode.
func (s *Server) try(mode Mode) error {
	switch mode {
	case ModeFile:
		s.mode = ModeFile
		s.log("sysgenid: %s is a plain file: mapped counter only, acknowledgements are not available", s.path)
		close(s.done)
		return nil
	case ModePassthrough, ModePageCache:
	default:
		return unix.EINVAL
	}
	if mode == ModePassthrough && s.memory == nil {
		memory, err := newMemfd()
		if err != nil {
			return err
		}
		memory.store(s.core.counter.Load())
		s.memory = memory
	}
	c, end, err := s.connect(mode)
	if err != nil {
		return err
	}
	s.mode, s.conn = c.mode, c
	go s.run(c, end)
	return nil
}

// connect mounts, serves, and does not return before the device was seen to
// work in that mode. end delivers why the connection ended, once.
func (s *Server) connect(mode Mode) (*conn, <-chan error, error) {
	c, err := mount(s, mode)
	if err != nil {
		return nil, nil, err
	}
	s.core.restart(c)
	end := make(chan error, 1)
	go func() { end <- c.serve() }()
	err = s.verify(c, mode)
	if errors.Is(err, errForgeable) && s.options.Mode == ModePassthrough {
		s.log("sysgenid: %s is served by passthrough as asked for, but %v", s.path, err)
		err = nil
	}
	if err == nil {
		return c, end, nil
	}
	_ = unix.Unmount(s.path, unix.MNT_DETACH)
	c.close()
	<-end
	return nil, nil, err
}

// verifyTimeout is how long the kernel and this process may take to answer each
// other before a mode is given up. It is a net, not a tuning: the answer comes
// within a millisecond.
const verifyTimeout = 5 * time.Second

// verify waits for INIT and looks at the device as a client would. If the
// answer never comes, closing the connection (by the caller) ends the look.
func (s *Server) verify(c *conn, mode Mode) error {
	late := time.NewTimer(verifyTimeout)
	defer late.Stop()
	select {
	case <-c.ready:
	case <-late.C:
		return errors.New("the kernel did not begin to talk FUSE")
	}
	if c.mode != mode {
		return c.cause
	}
	result := make(chan error, 1)
	go func() { result <- look(s.path, s.core.counter.Load) }()
	select {
	case err := <-result:
		return err
	case <-late.C:
		return errors.New("the mounted device does not answer")
	}
}

// run serves a connection to its end, and replaces it if it was not ended by
// Close: somebody aborted it or unmounted the device.
func (s *Server) run(c *conn, end <-chan error) {
	defer close(s.done)
	for {
		err := <-end
		c.close()
		s.mu.Lock()
		s.conn = nil
		closed := s.closed
		s.mu.Unlock()
		if closed {
			return
		}
		lost := s.core.restart(silent{})
		s.log("sysgenid: connection of %s broke (%v); tracked watchers lost: %s", s.path, err, names(lost))
		s.changed(len(lost) > 0)
		if c, end = s.again(); c == nil {
			return
		}
	}
}

// again mounts anew until that works or the server is closed. Meanwhile the
// plain file below serves the mapped counter.
func (s *Server) again() (*conn, <-chan error) {
	for delay := 10 * time.Millisecond; ; delay = min(2*delay, time.Second) {
		// The dead mount is still there after an abort, and gone after an unmount.
		if err := clearDead(s.path); err != nil {
			s.log("sysgenid: %v", err)
		}
		c, end, err := s.connect(s.mode)
		if err == nil {
			if s.adopt(c) {
				s.log("sysgenid: serving %s again", s.path)
				return c, end
			}
			s.unmount(c)
			<-end
			return nil, nil
		}
		s.log("sysgenid: serve %s again: %v", s.path, err)
		select {
		case <-s.stop:
			return nil, nil
		case <-time.After(delay):
		}
	}
}

// adopt makes c the connection that bumps store into, and reports whether the
// server is still wanted. A bump since c began is stored into it now.
func (s *Server) adopt(c *conn) bool {
	s.bumps.Lock()
	defer s.bumps.Unlock()
	s.mu.Lock()
	s.conn = c
	closed := s.closed
	s.mu.Unlock()
	if s.mode == ModePageCache {
		c.store(s.core.counter.Load())
	}
	return !closed
}

func names(list []Watcher) string {
	if len(list) == 0 {
		return "none"
	}
	text := ""
	for i, w := range list {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%s[%d]", w.Comm, w.PID)
	}
	return text
}

// Bump raises the generation to max(least, current+1), changes every mapped
// page, wakes readers and pollers, and returns the new generation. After Close
// it changes nothing.
func (s *Server) Bump(least uint32) uint32 {
	s.bumps.Lock()
	defer s.bumps.Unlock()
	s.mu.Lock()
	c, mode, closed := s.conn, s.mode, s.closed
	s.mu.Unlock()
	if closed { // the pages may be gone
		return s.core.counter.Load()
	}
	gen := s.core.bump(least, mode != ModePageCache, func(gen uint32) {
		s.base.store(gen)
		if s.memory != nil {
			s.memory.store(gen)
		}
		if mode == ModePageCache && c != nil {
			c.store(gen)
		}
	})
	if mode == ModeFile {
		s.base.announce(gen)
	}
	s.options.OnChange()
	return gen
}

// Generation returns the current generation.
func (s *Server) Generation() uint32 { return s.core.counter.Load() }

// Watchers lists all open file descriptions, by ID. In ModeFile there are none.
func (s *Server) Watchers() []Watcher {
	return s.list(func(*handle) bool { return true })
}

// Outdated lists the tracked watchers that have not acknowledged the current
// generation, by ID.
func (s *Server) Outdated() []Watcher {
	return s.list(func(h *handle) bool { return h.tracked && s.core.stale(h) })
}

func (s *Server) list(keep func(*handle) bool) []Watcher {
	list := s.core.watchers(keep)
	slices.SortFunc(list, func(a, b Watcher) int { return int(a.ID) - int(b.ID) })
	for i := range list {
		if w := &list[i]; w.Comm == "" && w.PID != 0 {
			w.PID, w.Comm = s.who(uint32(w.PID))
		}
	}
	return list
}

// Wait returns once no tracked watcher is outdated, at once if none is; or with
// the context's error, or ErrClosed.
func (s *Server) Wait(ctx context.Context) error {
	idle := s.core.idleNow()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-s.stop:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Mode returns how the device is served.
func (s *Server) Mode() Mode {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mode
}

// Path returns where the device is served.
func (s *Server) Path() string { return s.path }

// Close ends the service: calls that block return ECONNABORTED, the mount goes,
// and so does the plain file if Serve made it.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.closed = true
	c := s.conn
	s.mu.Unlock()
	close(s.stop)
	var err error
	if c != nil {
		err = s.unmount(c)
	}
	<-s.done
	s.bumps.Lock() // pages are not unmapped under a bump
	defer s.bumps.Unlock()
	if s.memory != nil {
		err = errors.Join(err, s.memory.close())
	}
	return errors.Join(err, s.base.remove())
}

// unmount takes the mount away and ends the connection.
func (s *Server) unmount(c *conn) error {
	err := unix.Unmount(s.path, unix.MNT_DETACH)
	c.close()
	if err != nil {
		return fmt.Errorf("unmount %s: %w", s.path, err)
	}
	return nil
}
