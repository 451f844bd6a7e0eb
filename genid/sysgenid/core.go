package sysgenid

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// answerer sends what core decides. It must not call back into core.
type answerer interface {
	// answer ends a blocked or current request: an error, or a payload.
	answer(unique uint64, errno syscall.Errno, payload []byte)
	// wake tells the kernel that a polled file may have become readable.
	wake(pollKey uint64)
}

// change is a bump that is still to come, or that came: every description
// that acknowledged at the same generation points to the same change.
type change struct{ at time.Time }

// handle is one open file description.
type handle struct {
	id      uint64
	uid     uint32
	thread  uint32 // last thread that used it, while a request of it was pending
	process int    // its process, looked up when tracking was asked for
	comm    string
	acked   uint32
	tracked bool
	cached  bool    // opened for reading in page-cache mode: reads are of the page
	after   *change // the first bump after acked
	pollKey uint64
	pollAt  int // place in core.pollers, from 1; 0 if not there
}

// waiter is a pending WAIT_WATCHERS.
type waiter struct {
	handle *handle
	stop   func() bool // ends the time-out; nil if there is none
}

// core is the state of all open file descriptions and what each call on them
// does: the table of the interface, without FUSE around it.
//
// mu is held for map and counter work only. What may still run while it is
// held: page faults, which are answered from counter alone. Wake-ups that a
// bump causes are sent after it is released.
type core struct {
	counter atomic.Uint32 // the generation; written under mu

	mu       sync.Mutex
	out      answerer
	storing  bool    // the counter is new, the page not yet: hold back who would read
	next     *change // the bump to come
	handles  map[uint64]*handle
	perUID   map[uint32]int
	limit    int // of handles per uid other than 0
	lastID   uint64
	tracked  int
	outdated int                // tracked and outdated
	readers  map[uint64]*handle // blocked reads by request
	waiters  map[uint64]*waiter // blocked WAIT_WATCHERS by request
	pollers  []*handle
	idle     chan struct{} // closed when outdated becomes 0; nil if nobody listens

	now   func() time.Time
	after func(time.Duration, func()) (stop func() bool)
}

func newCore(out answerer, limit int) *core {
	c := &core{
		out:    out,
		limit:  limit,
		perUID: map[uint32]int{},
		next:   new(change),
		now:    time.Now,
		after: func(d time.Duration, f func()) func() bool {
			return time.AfterFunc(d, f).Stop
		},
	}
	c.clear()
	return c
}

// clear forgets every handle and pending request, without answering.
func (c *core) clear() {
	c.handles = map[uint64]*handle{}
	c.readers = map[uint64]*handle{}
	c.waiters = map[uint64]*waiter{}
	c.pollers = nil
	c.tracked, c.outdated = 0, 0
	clear(c.perUID)
}

// restart puts another connection under the core. Requests and handles of the
// old one have died with it; the tracked ones are returned so that they can be
// named.
func (c *core) restart(out answerer) (lost []Watcher) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.handles {
		if h.tracked {
			lost = append(lost, c.describe(h))
		}
	}
	for _, w := range c.waiters {
		w.cancel()
	}
	c.clear()
	c.out = out
	c.signalIdle()
	return lost
}

func (w *waiter) cancel() {
	if w.stop != nil {
		w.stop()
	}
}

// stale says whether h has not acknowledged the current generation.
func (c *core) stale(h *handle) bool { return h.acked != c.counter.Load() }

// open makes a description up to date and untracked.
func (c *core) open(uid, thread uint32, cached bool) (uint64, syscall.Errno) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if uid != 0 && c.perUID[uid] >= c.limit {
		return 0, syscall.EMFILE
	}
	c.perUID[uid]++
	c.lastID++
	c.handles[c.lastID] = &handle{
		id: c.lastID, uid: uid, thread: thread, cached: cached,
		acked: c.counter.Load(), after: c.next,
	}
	return c.lastID, 0
}

// release forgets a description; the kernel sends it after the last close and
// the last call on it. It reports whether the watchers changed.
func (c *core) release(id uint64) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.handles[id]
	if h == nil {
		return false
	}
	changed = c.track(h, false)
	delete(c.handles, id)
	if c.perUID[h.uid]--; c.perUID[h.uid] == 0 {
		delete(c.perUID, h.uid)
	}
	c.dropPoller(h)
	return changed
}

func (c *core) dropPoller(h *handle) {
	if h.pollAt == 0 {
		return
	}
	last := len(c.pollers) - 1
	moved := c.pollers[last]
	moved.pollAt = h.pollAt
	c.pollers[h.pollAt-1] = moved
	c.pollers[last] = nil
	c.pollers = c.pollers[:last]
	h.pollAt = 0
}

// lookup finds a request's handle and remembers who uses it.
func (c *core) lookup(id uint64, thread uint32) *handle {
	h := c.handles[id]
	if h != nil && thread != 0 {
		h.thread = thread
	}
	return h
}

// isCached says whether reads of a description are reads of the page.
func (c *core) isCached(id uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.handles[id]
	return h == nil || h.cached
}

// isOpen says whether there is any description.
func (c *core) isOpen() bool {
	c.mu.Lock()
	n := len(c.handles)
	c.mu.Unlock()
	return n > 0
}

// read answers a read(2), now or when the generation changes.
func (c *core) read(unique, id uint64, thread, size uint32, nonblock bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.lookup(id, thread)
	switch {
	case h == nil:
		c.out.answer(unique, syscall.EBADF, nil)
	case size == 0:
		c.out.answer(unique, 0, nil)
	case size < 4:
		c.out.answer(unique, syscall.EINVAL, nil)
	case c.stale(h) && !c.storing:
		c.out.answer(unique, 0, binary.NativeEndian.AppendUint32(nil, c.counter.Load()))
	case nonblock:
		c.out.answer(unique, syscall.EAGAIN, nil)
	default:
		c.readers[unique] = h
	}
}

// write acknowledges. It reports whether the watchers changed.
func (c *core) write(unique, id uint64, thread uint32, data []byte) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.lookup(id, thread)
	switch {
	case h == nil:
		c.out.answer(unique, syscall.EBADF, nil)
	case len(data) != 4:
		c.out.answer(unique, syscall.ENOBUFS, nil)
	case binary.NativeEndian.Uint32(data) != c.counter.Load():
		c.out.answer(unique, syscall.EINVAL, nil)
	default:
		if c.stale(h) && h.tracked {
			c.outdated--
			changed = true
		}
		h.acked = c.counter.Load()
		h.after = c.next
		c.out.answer(unique, 0, appendPair(nil, 4))
		c.signalIdle()
	}
	return changed
}

// poll answers at once, and remembers who wants to be woken. The key stays
// until release: an edge-triggered epoll polls again only after a wake-up.
func (c *core) poll(unique uint64, thread uint32, in pollReq) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.lookup(in.Handle, thread)
	if h == nil {
		c.out.answer(unique, syscall.EBADF, nil)
		return
	}
	if in.Flags&pollSchedule != 0 && h.pollAt == 0 {
		h.pollKey = in.Key
		c.pollers = append(c.pollers, h)
		h.pollAt = len(c.pollers)
	}
	events := uint32(0)
	if c.stale(h) && !c.storing {
		events = pollIn | pollRdNorm
	}
	c.out.answer(unique, 0, appendPair(nil, events))
}

// setTracking is SET_WATCHER_TRACKING. who names the caller for reports. It
// reports whether the watchers changed.
func (c *core) setTracking(unique, id uint64, thread uint32, on bool, process int, comm string) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.lookup(id, thread)
	if h == nil {
		c.out.answer(unique, syscall.EBADF, nil)
		return false
	}
	h.process, h.comm = process, comm
	changed = c.track(h, on)
	c.out.answer(unique, 0, appendIoctl(nil))
	return changed
}

func (c *core) track(h *handle, on bool) (changed bool) {
	if h.tracked == on {
		return false
	}
	step := 1
	if !on {
		step = -1
	}
	h.tracked = on
	c.tracked += step
	if c.stale(h) {
		c.outdated += step
	}
	c.signalIdle()
	return true
}

// waitWatchers is WAIT_WATCHERS, with a time-out in milliseconds. Being
// outdated oneself goes first: the caller must adjust, whatever others do.
func (c *core) waitWatchers(unique, id uint64, thread uint32, ms uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.lookup(id, thread)
	switch {
	case h == nil:
		c.out.answer(unique, syscall.EBADF, nil)
	case c.stale(h):
		c.out.answer(unique, syscall.EINTR, nil)
	case c.outdated == 0:
		c.out.answer(unique, 0, appendIoctl(nil))
	default:
		w := &waiter{handle: h}
		c.waiters[unique] = w
		if ms != 0 {
			w.stop = c.after(milliseconds(ms), func() { c.expire(unique, w) })
		}
	}
}

// milliseconds saturates: an argument of all ones is 584 million years.
func milliseconds(ms uint64) time.Duration {
	const most = uint64(1<<63-1) / uint64(time.Millisecond)
	return time.Duration(min(ms, most)) * time.Millisecond
}

func (c *core) expire(unique uint64, w *waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiters[unique] == w {
		delete(c.waiters, unique)
		c.out.answer(unique, syscall.ETIME, nil)
	}
}

// interrupt ends a blocked request with EINTR. A request that is not blocked
// has been answered already, or will be at once. (The VFS would restart on
// ERESTARTSYS, but FUSE refuses that from a server: fs/fuse/dev.c,
// fuse_dev_do_write, errors at or below -512.)
func (c *core) interrupt(unique uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.readers[unique]; ok {
		delete(c.readers, unique)
		c.out.answer(unique, syscall.EINTR, nil)
	}
	if w, ok := c.waiters[unique]; ok {
		delete(c.waiters, unique)
		w.cancel()
		c.out.answer(unique, syscall.EINTR, nil)
	}
}

// signalIdle ends everyone's waiting if no tracked watcher is outdated.
func (c *core) signalIdle() {
	if c.outdated != 0 {
		return
	}
	for unique, w := range c.waiters {
		delete(c.waiters, unique)
		w.cancel()
		c.out.answer(unique, 0, appendIoctl(nil))
	}
	if c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
}

// idleNow returns nil if no tracked watcher is outdated, else a channel that is
// closed when that becomes so.
func (c *core) idleNow() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.outdated == 0 {
		return nil
	}
	if c.idle == nil {
		c.idle = make(chan struct{})
	}
	return c.idle
}

// bump raises the counter to max(min, counter+1), has store change the page,
// and wakes everyone. Callers must serialise bumps. After 2^32-1 the counter
// wraps to 0, as the driver's does: a change is what clients look for.
//
// instant says that store is a plain memory store and is done under mu; else it
// may have to wait for a page fault to be answered, and is done without. In
// that case who reads in between waits for the end of the store, but an
// acknowledgement of the new generation is taken: its sender has seen the page.
func (c *core) bump(least uint32, instant bool, store func(uint32)) uint32 {
	c.mu.Lock()
	gen := max(least, c.counter.Load()+1)
	c.next.at = c.now()
	c.next = new(change)
	c.counter.Store(gen)
	c.outdated = c.tracked
	if !instant {
		c.storing = true
		c.mu.Unlock()
		store(gen)
		c.mu.Lock()
		c.storing = false
	} else {
		store(gen)
	}
	wake := c.detach()
	c.mu.Unlock()
	wake.send(gen)
	return gen
}

// wakeup is everyone whom a bump wakes.
type wakeup struct {
	out     answerer
	readers map[uint64]*handle
	waiters map[uint64]*waiter
	keys    []uint64
}

// detach takes the blocked requests that a new generation ends. Readers who
// acknowledged it already (they had seen the page) go on waiting.
func (c *core) detach() wakeup {
	w := wakeup{c.out, c.readers, c.waiters, nil}
	c.readers = make(map[uint64]*handle, len(w.readers))
	c.waiters = map[uint64]*waiter{}
	for unique, h := range w.readers {
		if !c.stale(h) {
			delete(w.readers, unique)
			c.readers[unique] = h
		}
	}
	for _, h := range c.pollers {
		w.keys = append(w.keys, h.pollKey)
	}
	return w
}

func (w wakeup) send(gen uint32) {
	payload := binary.NativeEndian.AppendUint32(nil, gen)
	for unique := range w.readers {
		w.out.answer(unique, 0, payload)
	}
	for _, key := range w.keys {
		w.out.wake(key)
	}
	for unique, waiter := range w.waiters {
		waiter.cancel()
		w.out.answer(unique, syscall.EINTR, nil)
	}
}

// watchers lists the descriptions that keep accepts.
func (c *core) watchers(keep func(*handle) bool) []Watcher {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []Watcher
	for _, h := range c.handles {
		if keep(h) {
			list = append(list, c.describe(h))
		}
	}
	return list
}

func (c *core) describe(h *handle) Watcher {
	w := Watcher{
		ID: h.id, PID: h.process, Comm: h.comm, UID: h.uid,
		Acknowledged: h.acked, Tracked: h.tracked,
	}
	if w.PID == 0 {
		w.PID = int(h.thread)
	}
	if c.stale(h) {
		w.OutdatedSince = h.after.at
	}
	return w
}
