package sysgenid

import (
	"context"
	"errors"
	"os"
	"sort"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
	"rouse/internal/guard"
)

// Options of Serve. The zero value is right for PID 1.
type Options struct {
	// Mode forces a way to serve; ModeAuto takes the first that works of
	// passthrough, page cache and file, and logs why a better one did not.
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
	memory  *page // the memfd; nil but for passthrough to one
	shelved bool  // passthrough is to a shelf and not to a memfd

	// bumps serialises bumps, so that the page never goes back. Faults,
	// acknowledgements and all other calls go on while it is held.
	bumps sync.Mutex

	waking sync.WaitGroup // who wakes the sleepers on a device's own file

	mu     sync.Mutex // guards what follows; nothing waits while it is held
	conn   *conn      // nil in ModeFile, and while a dead connection is being replaced
	shelf  *shelf     // nil but for passthrough without a memfd
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
	if mode == ModePassthrough && !s.shelved {
		if err := s.openMemory(); err != nil {
			return err
		}
	}
	c, end, err := s.connect(mode)
	if errors.Is(err, errForgeable) && !s.shelved {
		err = errors.Join(err, s.closeMemory())
		s.log("sysgenid: %v; so the page is served by a second FUSE file", err)
		s.shelved = true
		c, end, err = s.connect(mode)
	}
	if err != nil {
		s.setShelf(nil)
		return errors.Join(err, s.closeMemory())
	}
	s.mode, s.conn = c.mode, c
	go guard.Do(func() { s.run(c, end) })
	return nil
}

// openMemory makes the memfd, with the present counter.
func (s *Server) openMemory() error {
	memory, err := newMemfd()
	if err != nil {
		return err
	}
	memory.store(s.core.counter.Load())
	s.memory = memory
	return nil
}

func (s *Server) closeMemory() error {
	if s.memory == nil {
		return nil
	}
	err := s.memory.close()
	s.memory = nil
	return err
}

// connect mounts, serves, and does not return before the device was seen to
// work in that mode. end delivers why the connection ended, once.
func (s *Server) connect(mode Mode) (*conn, <-chan error, error) {
	page, err := s.backing(mode)
	if err != nil {
		return nil, nil, err
	}
	c, err := mount(s, mode)
	if err != nil {
		return nil, nil, err
	}
	c.page = page
	s.core.restart(c)
	end := make(chan error, 1)
	go guard.Do(func() { end <- c.serve(c.dispatch) })
	err = s.verify(c, mode)
	if err == nil {
		return c, end, nil
	}
	_ = unix.Unmount(s.path, unix.MNT_DETACH)
	c.close()
	<-end
	return nil, nil, err
}

// backing returns the file that mappings are passed through to, if any.
func (s *Server) backing(mode Mode) (*os.File, error) {
	switch {
	case mode != ModePassthrough:
		return nil, nil
	case !s.shelved:
		return s.memory.file, nil
	case s.shelf != nil && !s.shelf.broken.Load():
		return s.shelf.page, nil
	}
	h, err := newShelf(s)
	if err != nil {
		return nil, err
	}
	s.setShelf(h)
	return h.page, nil
}

// setShelf replaces the shelf, or removes it. Only the goroutine that connects
// calls it; bumps look at the shelf meanwhile.
func (s *Server) setShelf(h *shelf) {
	s.mu.Lock()
	old := s.shelf
	s.shelf = h
	s.mu.Unlock()
	if old != nil {
		old.close()
	}
}

// storePage changes the mapped page wherever that is not plain memory.
func (s *Server) storePage(gen uint32) {
	s.mu.Lock()
	c, h := s.conn, s.shelf
	s.mu.Unlock()
	var err error
	switch {
	case h != nil:
		err = h.store(gen)
	case c != nil && c.mode == ModePageCache:
		err = c.store(gen)
	}
	if err != nil {
		s.log("sysgenid: %s: %v", s.path, err)
	}
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
	sealed := mode == ModePassthrough && !s.shelved
	go guard.Do(func() { result <- look(s.path, sealed, s.core.counter.Load) })
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
		err := s.untilEnd(c, end)
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

// untilEnd waits for the end of a connection, or of the shelf that it needs to
// be opened, closes it, and returns why.
func (s *Server) untilEnd(c *conn, end <-chan error) error {
	defer c.close()
	var gone <-chan struct{}
	if s.shelf != nil {
		gone = s.shelf.ended
	}
	select {
	case err := <-end:
		return err
	case <-gone:
		c.close()
		<-end
		return errors.New("the connection of its page ended")
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
// server is still wanted. A bump since c began is stored into it now. Who
// sleeps on a page that outlived the connection before looks for this one.
func (s *Server) adopt(c *conn) bool {
	s.bumps.Lock()
	defer s.bumps.Unlock()
	s.mu.Lock()
	s.conn = c
	closed := s.closed
	s.mu.Unlock()
	s.storePage(s.core.counter.Load())
	s.wakeMapped()
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
// page, wakes all who wait, and returns the new generation. Who sleeps on a page
// that the page cache serves may be woken a moment after the return. After Close
// it changes nothing.
func (s *Server) Bump(least uint32) uint32 {
	s.bumps.Lock()
	defer s.bumps.Unlock()
	s.mu.Lock()
	mode, closed := s.mode, s.closed
	s.mu.Unlock()
	if closed { // the pages may be gone
		return s.core.counter.Load()
	}
	instant := mode == ModeFile || s.memory != nil
	gen := s.core.bump(least, instant, func(gen uint32) {
		s.base.store(gen)
		if s.memory != nil {
			s.memory.store(gen)
		}
		s.storePage(gen)
	})
	if mode == ModeFile {
		s.base.announce(gen)
	}
	s.wakeMapped()
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
	sort.Slice(list, func(a, b int) bool { return list[a].ID < list[b].ID })
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
	s.wakeMapped()
	s.waking.Wait()
	s.setShelf(nil)
	return errors.Join(err, s.closeMemory(), s.base.remove())
}

// unmount takes the mount away and ends the connection.
func (s *Server) unmount(c *conn) error {
	err := unix.Unmount(s.path, unix.MNT_DETACH)
	c.close()
	if err != nil {
		return wrap("unmount "+s.path, err)
	}
	return nil
}
