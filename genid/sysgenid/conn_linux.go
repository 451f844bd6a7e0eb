package sysgenid

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
	"rouse/internal/guard"
)

// ioctls of /dev/fuse: FUSE_DEV_IOC_BACKING_OPEN, _IOW(229, 1, struct
// fuse_backing_map { s32 fd; u32 flags; u64 padding }), Linux 6.9.
const backingOpen = 1<<30 | 16<<16 | 229<<8 | 1

// link is a descriptor of /dev/fuse that is connected to a mount. A single
// goroutine reads and handles requests and never waits for anything but the
// next one: page faults have to be answered while a bump is being stored. What
// may have to wait (a trigger, which stores) runs in a goroutine of its own.
//
// Reads and answers are raw system calls, which do not tell Go's scheduler:
// the descriptor is non-blocking, answering does not block, and an idle sysmon
// is not woken for every request. Only a store, which may wait for a page's
// lock, is an ordinary one.
type link struct {
	file   *os.File
	raw    syscall.RawConn
	broken atomic.Bool
	bits   uint32 // the page's second word; before INIT is answered nobody sees it
}

// join makes a link of a descriptor that is mounted. It is Go's poller's only
// from then on: one that has no mount yet is in error for epoll, and
// edge-triggered epoll would never look again.
func join(fd int, name string) (*link, error) {
	file := os.NewFile(uintptr(fd), name)
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &link{file: file, raw: raw}, nil
}

// serve handles requests until the connection ends, and returns why it did:
// os.ErrClosed after close, ECONNABORTED if aborted from sysfs, ENODEV if
// unmounted.
func (l *link) serve(dispatch func([]byte)) error {
	defer l.broken.Store(true)
	buf := make([]byte, requestBuffer)
	var end error
	err := l.raw.Read(func(fd uintptr) bool {
		for {
			n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
			switch errno {
			case 0:
				dispatch(buf[:n])
			case unix.EINTR, unix.ENOENT: // ENOENT: that request was taken back
			case unix.EAGAIN:
				return false
			default:
				end = errno
				return true
			}
		}
	})
	return errors.Join(end, err)
}

// write sends one message, ignoring errors: a request that its caller gave up
// is no longer there (ENOENT), and a dead connection is noticed by serve.
func (l *link) write(b []byte) {
	_ = l.raw.Control(func(fd uintptr) {
		_, _, _ = unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	})
}

// answer implements answerer.
func (l *link) answer(unique uint64, errno syscall.Errno, payload []byte) {
	b := appendAnswer(make([]byte, 0, 160), unique, errno, len(payload))
	l.write(append(b, payload...))
}

// wake implements answerer: FUSE_NOTIFY_POLL, struct { u64 kh }.
func (l *link) wake(key uint64) {
	b := appendNotify(make([]byte, 0, 24), notifyPoll, 8)
	l.write(appendU64(b, key))
}

// store puts the counter into the page cache. It waits while the page is
// locked for a fault, which serve answers.
func (l *link) store(gen uint32) error {
	const payload = 24 + PageSize
	b := appendNotify(make([]byte, 0, answerHeader+payload), notifyStore, payload)
	b = appendStore(b, gen, l.bits)
	var failed error
	_ = l.raw.Control(func(fd uintptr) {
		if _, err := unix.Write(int(fd), b); err != nil && !l.broken.Load() {
			failed = fmt.Errorf("store generation %d in the mapped page: %w", gen, err)
		}
	})
	return failed
}

// fault answers a read of the page. The counter is read without any lock.
func (l *link) fault(unique uint64, in readIn, counter *atomic.Uint32) {
	n := 0
	if in.Offset < PageSize {
		n = int(min(uint64(in.Size), PageSize-in.Offset))
	}
	b := appendAnswer(make([]byte, 0, answerHeader+PageSize), unique, 0, n)
	if in.Offset == 0 {
		b = appendPage(b, counter.Load(), l.bits, n)
	} else {
		b = append(b, make([]byte, n)...)
	}
	l.write(b)
}

// conn is the connection of the device.
type conn struct {
	*link
	server  *Server
	want    Mode
	mode    Mode // valid after ready is closed
	cause   error
	ready   chan struct{} // closed when INIT has been answered
	page    *os.File      // what passthrough mappings show; nil without passthrough
	own     atomic.Uint32 // the thread that opens it to wake who sleeps, while it does
	opening sync.Mutex    // by one such thread at a time
	back    int32
}

// mount makes a connection and puts its one file over path.
func mount(s *Server, want Mode) (*conn, error) {
	fd, err := unix.Open(s.options.Device, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, wrap("open "+s.options.Device, err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=100666,user_id=%d,group_id=%d,allow_other,max_read=%d",
		fd, os.Geteuid(), os.Getegid(), PageSize)
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("sysgenid", s.path, "fuse.sysgenid", flags, options); err != nil {
		unix.Close(fd)
		return nil, wrap("mount FUSE on "+s.path, err)
	}
	l, err := join(fd, s.options.Device)
	if err != nil {
		return nil, err
	}
	return &conn{link: l, server: s, want: want, ready: make(chan struct{})}, nil
}

// dispatch handles one request.
func (c *conn) dispatch(b []byte) {
	r, err := parseRequest(b)
	if err != nil {
		c.server.log("sysgenid: %v", err)
		return
	}
	if err := c.handle(r); err != nil {
		c.answer(r.Unique, syscall.EINVAL, nil)
	}
}

// handle calls the request's handler. An error means that it was malformed and
// not answered.
func (c *conn) handle(r request) error {
	switch r.Op {
	case opInit:
		return c.init(r)
	case opOpen:
		return c.open(r)
	case opRelease:
		return c.release(r)
	case opRead:
		return c.read(r)
	case opWrite:
		return c.acknowledge(r)
	case opPoll:
		return c.poll(r)
	case opIoctl:
		return c.ioctl(r)
	case opInterrupt:
		unique, err := parseFirst(r.Body)
		if err == nil {
			c.server.core.interrupt(unique)
		}
		return nil // nobody expects an answer to this one
	case opGetattr:
		c.answer(r.Unique, 0, appendAttr(nil, c.server.started))
	case opSetattr:
		return c.setattr(r)
	case opStatfs:
		c.answer(r.Unique, 0, appendStatfs(nil))
	case opForget, opBatchForget, opDestroy:
	default:
		c.answer(r.Unique, syscall.ENOSYS, nil)
	}
	return nil
}

// init negotiates, and chooses how mappings are served.
func (c *conn) init(r request) error {
	in, err := parseInit(r.Body)
	if err != nil || in.Major != fuseMajor {
		return errors.Join(err, errors.New("FUSE of another major version"))
	}
	defer close(c.ready)
	offered := in.Flags&(initPassthrough|initExt) == initPassthrough|initExt
	through := offered && c.want != ModePageCache && c.page != nil
	c.answer(r.Unique, 0, appendInit(nil, in, through))
	c.mode = ModePageCache
	switch {
	case through:
		if c.back, c.cause = c.register(c.page.Fd()); c.cause == nil {
			c.mode = ModePassthrough
		}
	case c.want != ModePageCache:
		c.cause = errors.New("the kernel offers no FUSE_PASSTHROUGH (Linux 6.9, CONFIG_FUSE_PASSTHROUGH)")
	}
	if c.mode == ModePageCache {
		if in.Minor < minorDropping {
			c.bits = pageWakes
		}
		return c.store(c.server.core.counter.Load()) // nobody can have it open yet, so this cannot wait
	}
	return nil
}

// register makes the page's file a backing file.
func (c *conn) register(page uintptr) (int32, error) {
	in := struct {
		fd      int32
		flags   uint32
		padding uint64
	}{fd: int32(page)}
	var id uintptr
	var errno syscall.Errno
	err := c.raw.Control(func(fd uintptr) {
		id, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, backingOpen, uintptr(unsafe.Pointer(&in)))
	})
	if errno != 0 {
		err = errno
	}
	if err != nil {
		return 0, wrap("register the page with FUSE_DEV_IOC_BACKING_OPEN", err)
	}
	return int32(id), nil
}

// open decides what a descriptor may do.
//
// Passthrough is for all opens alike: while one passthrough open exists, the
// kernel fails all others of the inode with EIO (fs/fuse/iomode.c,
// fuse_file_io_open), so that whoever held a descriptor for reading would keep
// all watchers out. Mappings are kept from being writable by the memfd's seal,
// or by the shelf. With the page cache, descriptors for writing are direct,
// which makes mmap fail with ENODEV, and descriptors for reading are cached.
func (c *conn) open(r request) error {
	flags, err := parseOpen(r.Body)
	if err != nil {
		return err
	}
	cached := c.mode == ModePageCache && flags&unix.O_ACCMODE == unix.O_RDONLY
	out := fopenDirectIO | fopenStream | fopenKeepCache | fopenNoFlush | fopenParallelWrites
	switch {
	case cached:
		out = fopenStream | fopenKeepCache | fopenNoFlush
	case c.mode == ModePassthrough:
		// No more is allowed with passthrough (fs/fuse/fuse_i.h,
		// FOPEN_PASSTHROUGH_MASK), hence no stream.
		out = fopenDirectIO | fopenPassthrough | fopenNoFlush | fopenParallelWrites
	}
	if r.PID == c.own.Load() { // no watcher: core need not know
		c.answer(r.Unique, 0, appendOpen(nil, 0, out, c.back))
		return nil
	}
	id, errno := c.server.core.open(r.UID, r.PID, cached)
	if errno != 0 {
		c.answer(r.Unique, errno, nil)
		return nil
	}
	c.answer(r.Unique, 0, appendOpen(nil, id, out, c.back))
	return nil
}

func (c *conn) release(r request) error {
	id, err := parseFirst(r.Body)
	if err != nil {
		return err
	}
	changed := c.server.core.release(id)
	c.answer(r.Unique, 0, nil)
	c.server.changed(changed)
	return nil
}

// read tells a read(2) from a fault on a mapping. All reads through a cached
// descriptor are the page cache's; through others, only those without a lock
// owner, which come from private mappings.
func (c *conn) read(r request) error {
	in, err := parseRead(r.Body)
	if err != nil {
		return err
	}
	if in.ReadFlags&readLockOwner == 0 || c.server.core.isCached(in.Handle) {
		c.fault(r.Unique, in, &c.server.core.counter)
		return nil
	}
	c.server.core.read(r.Unique, in.Handle, r.PID, in.Size, in.FileFlags&unix.O_NONBLOCK != 0)
	return nil
}

func (c *conn) acknowledge(r request) error {
	in, data, err := parseWrite(r.Body)
	if err != nil {
		return err
	}
	c.server.changed(c.server.core.write(r.Unique, in.Handle, r.PID, data))
	return nil
}

func (c *conn) poll(r request) error {
	in, err := parsePoll(r.Body)
	if err != nil {
		return err
	}
	c.server.core.poll(r.Unique, r.PID, in)
	return nil
}

func (c *conn) ioctl(r request) error {
	in, err := parseIoctl(r.Body)
	if err != nil {
		return err
	}
	switch uintptr(in.Cmd) {
	case SetWatcherTracking:
		process, comm := c.server.who(r.PID)
		c.server.changed(c.server.core.setTracking(r.Unique, in.Handle, r.PID, in.Arg != 0, process, comm))
	case WaitWatchers:
		c.server.core.waitWatchers(r.Unique, in.Handle, r.PID, in.Arg)
	case TriggerGenUpdate:
		unique, pid, arg := r.Unique, r.PID, uint32(in.Arg) // r's buffer is read into again
		go guard.Do(func() { c.trigger(unique, pid, arg) })
	default:
		c.answer(r.Unique, syscall.EINVAL, nil)
	}
	return nil
}

// trigger is TRIGGER_GEN_UPDATE. The caller cannot end before it is answered,
// so its pid means the same process throughout.
func (c *conn) trigger(unique uint64, thread, least uint32) {
	if !c.server.privileged(thread) {
		c.answer(unique, syscall.EACCES, nil)
		return
	}
	c.server.Bump(least)
	c.answer(unique, 0, appendIoctl(nil))
}

// setattr lets size and times be "set" without effect, as a character device
// does for open(O_TRUNC) and touch, and refuses the rest: the file must stay
// readable and writable to everyone.
func (c *conn) setattr(r request) error {
	valid, err := parseSetattr(r.Body)
	if err != nil {
		return err
	}
	if valid&setattrIDs != 0 {
		c.answer(r.Unique, syscall.EPERM, nil)
		return nil
	}
	c.answer(r.Unique, 0, appendAttr(nil, c.server.started))
	return nil
}

// close ends the connection; all its requests fail with ECONNABORTED.
func (c *conn) close() { _ = c.file.Close() }
