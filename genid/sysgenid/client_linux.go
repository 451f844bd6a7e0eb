package sysgenid

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// kind is what stands at a client's path.
type kind int

const (
	kindAbsent kind = iota // nothing: the generation is 0 for ever
	kindFile               // a plain file with the counter
	kindDevice             // the whole interface
)

// Client is one watcher. All methods may be used concurrently.
//
// A process needs one Client. It has its own open file description, so its
// acknowledgements are its own; descriptors are closed on exec.
type Client struct {
	path  string
	word  atomic.Pointer[uint32] // the counter, in the mapped page
	kind  kind
	ended *os.File // an eventfd that becomes readable at Close
	done  chan struct{}

	mu      sync.Mutex // guards what follows; system calls that block are made without it
	device  *os.File   // opened for reading and writing; nil unless kindDevice
	pages   []*mapping // all there were: Generation may be reading one; the last is in use
	sleeper *sleeper   // of the last page; nil until the first Wait
	acked   uint32
	tracked bool
	closed  bool
}

// mapping is a mapped page. A client's stays until it is unreachable, for
// Generation must be safe at any time, also beside Close.
type mapping struct {
	page []byte
	kind kind
	id   pageID
}

// pageID names the file that was mapped.
type pageID struct{ dev, ino uint64 }

func (m *mapping) generation() uint32 { return loadWord(m.page) }

// wakes says whether FUTEX_WAIT on the page is woken.
func (m *mapping) wakes() bool { return loadWord(m.page[4:])&pageWakes != 0 }

func unmap(page []byte) { _ = unix.Munmap(page) }

// Open opens the device at path (usually Path).
//
// Where nothing is at path, which is so on machines that are never cloned, the
// client works all the same: Present reports false, the generation is the
// constant 0, Track and Ack succeed, Wait waits for its context. A device that
// is there and cannot be opened is an error, for then generations would go
// unnoticed.
func Open(path string) (*Client, error) {
	c := &Client{path: path, done: make(chan struct{})}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open %s: eventfd: %w", path, err)
	}
	c.ended = os.NewFile(uintptr(fd), "eventfd")
	if err := c.attach(); err != nil {
		c.ended.Close()
		return nil, err
	}
	return c, nil
}

// attach maps the page and then opens the description that acknowledges. In
// that order the remembered generation is never newer than what the server
// takes as acknowledged, so that a bump in between is noticed.
func (c *Client) attach() error {
	m, err := mapCounter(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		c.word.Store(new(uint32))
		return nil
	}
	if err != nil {
		return err
	}
	runtime.AddCleanup(m, unmap, m.page)
	gen := m.generation()
	if m.kind == kindDevice {
		if c.device, err = openDevice(c.path); err != nil {
			return err
		}
	}
	c.kind, c.acked = m.kind, gen
	c.use(m)
	return nil
}

// use makes m the page in use.
func (c *Client) use(m *mapping) {
	c.pages = append(c.pages, m)
	c.word.Store((*uint32)(unsafe.Pointer(&m.page[0])))
}

// mapCounter maps the page as every client does: opened for reading, mapped,
// closed. A descriptor opened for writing could not be mapped.
func mapCounter(path string) (*mapping, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, wrap("open "+path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	kind, err := kindOf(fd, &st)
	if err != nil {
		return nil, wrap("open "+path, err)
	}
	page, err := unix.Mmap(fd, 0, PageSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, wrap("map "+path, err)
	}
	return &mapping{page, kind, pageID{st.Dev, st.Ino}}, nil
}

// kindOf fills st too.
func kindOf(fd int, st *unix.Stat_t) (kind, error) {
	if err := unix.Fstat(fd, st); err != nil {
		return 0, err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return 0, err
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFCHR:
		return kindDevice, nil
	case st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size < 4:
		return 0, errors.New("neither a device nor a file with a counter")
	case fs.Type == unix.FUSE_SUPER_MAGIC:
		return kindDevice, nil
	}
	return kindFile, nil
}

// openDevice keeps the descriptor out of Go's poller, which would ask the
// server, from the scheduler, at every wake-up: a service must not depend on
// PID 1 to schedule its goroutines. It becomes non-blocking only afterwards.
func openDevice(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, wrap("open "+path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	if err := unix.SetNonblock(fd, true); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Present says whether a device, or at least a file with the counter, was
// found at Open.
func (c *Client) Present() bool { return c.kind != kindAbsent }

// Generation returns the current generation: one load from the mapped page, no
// system call. Compare for equality only. It is valid after Close too.
func (c *Client) Generation() uint32 {
	gen := atomic.LoadUint32(c.word.Load())
	runtime.KeepAlive(c)
	return gen
}

// Track says whether others shall wait for this client's acknowledgements.
// Tracked clients must call Wait or Ack in a loop; lazy users must not be
// tracked. ErrNoAcknowledge: a plain file serves, nobody waits for anyone.
func (c *Client) Track(on bool) error {
	c.mu.Lock()
	c.tracked = on
	c.mu.Unlock()
	switch c.kind {
	case kindAbsent:
		return nil
	case kindFile:
		return fmt.Errorf("track %s: %w", c.path, ErrNoAcknowledge)
	}
	arg := uintptr(0)
	if on {
		arg = 1
	}
	return c.retry("track", func(fd uintptr) error { return ioctl(fd, SetWatcherTracking, arg) })
}

func ioctl(fd, cmd, arg uintptr) error {
	for {
		if err := ioctlOnce(fd, cmd, arg); err != unix.EINTR {
			return err
		}
	}
}

func ioctlOnce(fd, cmd, arg uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, cmd, arg); errno != 0 {
		return errno
	}
	return nil
}

func loadWord(page []byte) uint32 {
	return atomic.LoadUint32((*uint32)(unsafe.Pointer(&page[0])))
}

// Ack tells that everything has been adjusted to generation gen, as returned by
// Wait or Generation. ErrStale: there is a newer one; adjust again.
func (c *Client) Ack(gen uint32) error {
	var err error
	switch {
	case c.kind == kindDevice:
		err = c.retry("acknowledge", func(fd uintptr) error { return acknowledge(fd, gen) })
	case gen != c.Generation():
		err = unix.EINVAL
	}
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("acknowledge generation %d on %s: %w", gen, c.path, ErrStale)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.acked = gen
	c.mu.Unlock()
	return nil
}

func acknowledge(fd uintptr, gen uint32) error {
	b := binary.NativeEndian.AppendUint32(nil, gen)
	for {
		_, err := unix.Write(int(fd), b)
		if err != unix.EINTR {
			return err
		}
	}
}

// retry calls f with the descriptor, and once more with a new one if the
// server's connection died. Attaching sets tracking again.
func (c *Client) retry(what string, f func(fd uintptr) error) error {
	for again := false; ; again = true {
		device, err := c.current()
		if err != nil {
			return fmt.Errorf("%s %s: %w", what, c.path, err)
		}
		err = control(device, f)
		if !isDead(err) || again {
			if err != nil {
				return fmt.Errorf("%s %s: %w", what, c.path, err)
			}
			return nil
		}
		if err := c.reattach(device); err != nil {
			return fmt.Errorf("%s %s: %w", what, c.path, err)
		}
	}
}

func (c *Client) current() (*os.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	return c.device, nil
}

// control keeps the descriptor open while f uses it.
func control(file *os.File, f func(fd uintptr) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return ErrClosed
	}
	var result error
	if err := raw.Control(func(fd uintptr) { result = f(fd) }); err != nil {
		return ErrClosed
	}
	return result
}

// isDead says whether the error means that the server's connection ended.
func isDead(err error) bool {
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.ENODEV)
}

// reattach replaces a dead descriptor and its mapping, unless that has been
// done. What was acknowledged stays, so a generation that came in between is
// noticed by Wait; nobody waited for us in between, which the server reports.
func (c *Client) reattach(dead *os.File) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	if c.device != dead {
		return nil
	}
	m, err := mapCounter(c.path)
	if err == nil && m.kind != kindDevice {
		unmap(m.page) // the server is between two connections
		err = unix.ENOTCONN
	}
	if err != nil {
		return err
	}
	runtime.AddCleanup(m, unmap, m.page)
	device, err := openDevice(c.path)
	if err != nil {
		return err
	}
	c.use(m)
	c.leave()
	dead.Close()
	c.device = device
	if c.tracked {
		return control(device, func(fd uintptr) error { return ioctl(fd, SetWatcherTracking, 1) })
	}
	return nil
}

// Close ends the watching: others no longer wait for this client, and its own
// Wait returns ErrClosed.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.closed = true
	close(c.done)
	c.leave()
	one := binary.NativeEndian.AppendUint64(nil, 1)
	_, err := c.ended.Write(one) // never drained: every waiter sees it
	err = errors.Join(err, c.ended.Close())
	if c.device != nil {
		err = errors.Join(err, c.device.Close())
	}
	return err
}

// joinSleeper finds or starts the sleeper of a page.
func joinSleeper(m *mapping, path string) *sleeper {
	sleepers.mu.Lock()
	defer sleepers.mu.Unlock()
	s := sleepers.of[m.id]
	if s == nil {
		s = &sleeper{
			page: m, path: path, end: new(atomic.Uint32), every: lookEvery, again: lookAgain,
			woken: make(chan struct{}),
		}
		if sleepers.of == nil {
			sleepers.of = map[pageID]*sleeper{}
		}
		sleepers.of[m.id] = s
		go s.run(m.generation())
	}
	s.clients++
	return s
}
