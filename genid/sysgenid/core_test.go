package sysgenid

import (
	"encoding/binary"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"
)

// recorder keeps what core answers, as text.
type recorder struct {
	said    []string
	answers map[uint64]int
}

func (r *recorder) answer(unique uint64, errno syscall.Errno, payload []byte) {
	text := fmt.Sprintf("%d:", unique)
	switch {
	case errno == syscall.ETIME:
		text += "ETIME"
	case errno != 0:
		text += errnoName(errno)
	case len(payload) >= 4:
		text += fmt.Sprint(binary.NativeEndian.Uint32(payload))
	default:
		text += "ok"
	}
	r.said = append(r.said, text)
	if r.answers != nil {
		r.answers[unique]++
	}
}

func (r *recorder) wake(key uint64) { r.said = append(r.said, fmt.Sprintf("wake %d", key)) }

func errnoName(e syscall.Errno) string {
	for name, errno := range map[string]syscall.Errno{
		"EINTR": syscall.EINTR, "EAGAIN": syscall.EAGAIN, "EINVAL": syscall.EINVAL,
		"ENOBUFS": syscall.ENOBUFS, "EBADF": syscall.EBADF, "EMFILE": syscall.EMFILE,
	} {
		if e == errno {
			return name
		}
	}
	return e.Error()
}

// bench is a core with a recorder and a clock that tests turn.
type bench struct {
	*core
	rec    *recorder
	timers []func()
	waits  []time.Duration
}

func newBench() *bench {
	b := &bench{rec: &recorder{}}
	b.core = newCore(b.rec, 3)
	b.core.after = func(d time.Duration, f func()) func() bool {
		b.timers = append(b.timers, f)
		b.waits = append(b.waits, d)
		return func() bool { return true }
	}
	b.core.now = func() time.Time { return time.Unix(int64(b.core.counter.Load()), 0) }
	return b
}

func (b *bench) mustOpen(uid uint32) uint64 {
	id, errno := b.core.open(uid, 100+uid, false)
	if errno != 0 {
		panic(errno)
	}
	return id
}

func (b *bench) raise(least uint32) uint32 { return b.core.bump(least, true, func(uint32) {}) }

func gen(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// said compares and forgets what was answered.
func (b *bench) said(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(b.rec.said)
	slices.Sort(want)
	if !slices.Equal(b.rec.said, want) {
		t.Errorf("answered %q, want %q", b.rec.said, want)
	}
	b.rec.said = nil
}

func TestCoreRead(t *testing.T) {
	b := newBench()
	id := b.mustOpen(0)
	b.read(1, id, 0, 0, false)
	b.read(2, id, 0, 3, false)
	b.read(3, id, 0, 4, true)
	b.read(4, id, 0, 4096, false)
	b.read(5, 999, 0, 4, false)
	b.said(t, "1:ok", "2:EINVAL", "3:EAGAIN", "5:EBADF")
	b.raise(8)
	b.said(t, "4:8")
	b.read(6, id, 0, 4, false)
	b.read(7, id, 0, 4, true)
	b.said(t, "6:8", "7:8")
	b.read(8, id, 0, 2, true)
	b.said(t, "8:EINVAL")
}

func TestCoreWrite(t *testing.T) {
	b := newBench()
	id := b.mustOpen(0)
	b.raise(5)
	for i, data := range [][]byte{nil, {1}, gen(4), gen(6), make([]byte, 5), gen(5)} {
		b.write(uint64(i), id, 0, data)
	}
	b.said(t, "0:ENOBUFS", "1:ENOBUFS", "2:EINVAL", "3:EINVAL", "4:ENOBUFS", "5:4")
	b.read(9, id, 0, 4, true)
	b.said(t, "9:EAGAIN")
}

func TestCorePoll(t *testing.T) {
	b := newBench()
	id := b.mustOpen(0)
	b.poll(1, 0, pollReq{id, 70, 0})
	b.raise(0)
	b.said(t, "1:0") // nobody asked to be woken
	b.poll(2, 0, pollReq{id, 70, pollSchedule})
	b.poll(3, 0, pollReq{id, 70, pollSchedule})
	b.said(t, "2:65", "3:65")
	b.raise(0)
	b.raise(0)
	b.said(t, "wake 70", "wake 70")
	b.release(id)
	b.raise(0)
	b.said(t)
}

func TestCoreBumpValues(t *testing.T) {
	for _, row := range []struct{ from, least, want uint32 }{
		{0, 0, 1}, {5, 5, 6}, {5, 6, 6}, {5, 7, 7}, {5, 0, 6},
		{1<<32 - 2, 0, 1<<32 - 1}, {1<<32 - 1, 0, 0}, {1<<32 - 1, 7, 7},
	} {
		b := newBench()
		b.counter.Store(row.from)
		if got := b.raise(row.least); got != row.want {
			t.Errorf("from %d, at least %d: %d, want %d", row.from, row.least, got, row.want)
		}
	}
}

func TestCoreWait(t *testing.T) {
	b := newBench()
	watcher, overseer := b.mustOpen(0), b.mustOpen(0)
	b.waitWatchers(1, overseer, 0, 0)
	b.setTracking(2, watcher, 0, true, 0, "")
	b.waitWatchers(3, overseer, 0, 0)
	b.said(t, "1:0", "2:0", "3:0")
	b.raise(0)
	b.waitWatchers(4, overseer, 0, 0)
	b.said(t, "4:EINTR") // outdated itself
	b.write(5, overseer, 0, gen(1))
	b.waitWatchers(6, overseer, 0, 0)
	b.waitWatchers(7, overseer, 0, 250)
	b.waitWatchers(8, overseer, 0, 1<<63)
	b.said(t, "5:4")
	if b.waits[0] != 250*time.Millisecond || b.waits[1] <= 0 {
		t.Errorf("time-outs %v", b.waits)
	}
	b.timers[0]()
	b.said(t, "7:ETIME")
	b.timers[0]() // too late to do anything
	b.write(9, watcher, 0, gen(1))
	b.said(t, "6:0", "8:0", "9:4")
	b.raise(0)
	b.write(10, overseer, 0, gen(2))
	b.waitWatchers(11, overseer, 0, 0)
	b.raise(0)
	b.said(t, "10:4", "11:EINTR")
}

func TestCoreInterrupt(t *testing.T) {
	b := newBench()
	watcher, id := b.mustOpen(0), b.mustOpen(0)
	b.setTracking(1, watcher, 0, true, 0, "")
	b.raise(0)
	b.write(2, id, 0, gen(1))
	b.read(3, id, 0, 4, false)
	b.waitWatchers(4, id, 0, 1000)
	b.said(t, "1:0", "2:4")
	for range 2 {
		for unique := uint64(1); unique < 9; unique++ {
			b.interrupt(unique)
		}
		b.timers[0]()
	}
	b.said(t, "3:EINTR", "4:EINTR")
	b.raise(0)
	b.said(t)
}

func TestCoreTracking(t *testing.T) {
	b := newBench()
	id := b.mustOpen(0)
	count := func(want int) {
		t.Helper()
		if b.outdated != want {
			t.Errorf("%d outdated, want %d", b.outdated, want)
		}
	}
	b.raise(0)
	b.setTracking(1, id, 0, true, 42, "server")
	count(1)
	b.setTracking(2, id, 0, true, 42, "server")
	count(1)
	idle := b.idleNow()
	b.setTracking(3, id, 0, false, 42, "server")
	count(0)
	<-idle
	b.setTracking(4, id, 0, true, 42, "server")
	b.raise(0)
	count(1)
	w := b.watchers(func(*handle) bool { return true })[0]
	// It acknowledged 0, so it is late since the bump to 1, which came at the
	// clock's 0.
	want := Watcher{id, 42, "server", 0, 0, true, time.Unix(0, 0)}
	if w != want {
		t.Errorf("watcher %+v, want %+v", w, want)
	}
	b.release(id)
	count(0)
	if b.idleNow() != nil {
		t.Error("not idle without watchers")
	}
}

func TestCoreLimit(t *testing.T) {
	b := newBench()
	for range 5 {
		b.mustOpen(0)
	}
	for range 3 {
		b.mustOpen(7)
	}
	if _, errno := b.core.open(7, 0, false); errno != syscall.EMFILE {
		t.Errorf("fourth open: %v", errno)
	}
	b.mustOpen(8)
	b.release(6)
	b.mustOpen(7)
	b.release(12345) // unknown: nothing happens
}

// TestCoreStoring is the moment in which the counter is new and the page may
// still be old: who has seen the page may acknowledge, others do not yet learn
// of it, and nobody is lost.
func TestCoreStoring(t *testing.T) {
	b := newBench()
	seen, blocked, fresh := b.mustOpen(0), b.mustOpen(0), b.mustOpen(0)
	b.setTracking(1, seen, 0, true, 0, "")
	b.read(2, blocked, 0, 4, false)
	b.read(3, seen, 0, 4, false)
	b.rec.said = nil
	b.core.bump(0, false, func(now uint32) {
		b.read(4, fresh, 0, 4, false)
		b.read(5, fresh, 0, 4, true)
		b.poll(6, 0, pollReq{fresh, 70, pollSchedule})
		b.write(7, seen, 0, gen(now))
		b.said(t, "5:EAGAIN", "6:0", "7:4")
	})
	b.said(t, "2:1", "4:1", "wake 70")
	if b.outdated != 0 {
		t.Errorf("%d outdated", b.outdated)
	}
	b.raise(0)
	b.said(t, "3:2", "wake 70")
}

func TestCoreRestart(t *testing.T) {
	b := newBench()
	id := b.mustOpen(9)
	b.setTracking(1, id, 0, true, 42, "server")
	b.raise(0)
	b.rec.said = nil
	next := &recorder{}
	lost := b.restart(next)
	if len(lost) != 1 || lost[0].PID != 42 {
		t.Errorf("lost %+v", lost)
	}
	if b.outdated != 0 || b.idleNow() != nil || len(b.perUID) != 0 {
		t.Error("something is left of the old connection")
	}
	b.write(2, id, 0, gen(1)) // of an older life
	if !slices.Equal(next.said, []string{"2:EBADF"}) {
		t.Errorf("answered %q", next.said)
	}
}

// FuzzCore runs random calls and compares with a model that counts by looking
// at everyone.
func FuzzCore(f *testing.F) {
	f.Add([]byte("\x00\x00\x30\x00\x10\x20\x40\x30\x10\x50\x60\x70"))
	f.Add([]byte("\x00\x01\x40\x41\x30\x50\x51\x21\x80\x10\x60"))
	f.Fuzz(func(t *testing.T, program []byte) {
		b := newBench()
		b.rec.answers = map[uint64]int{}
		unique := uint64(0)
		asked := map[uint64]bool{}
		for _, op := range program {
			unique++
			id := uint64(op&15) + 1
			switch op >> 4 {
			case 0:
				_, _ = b.core.open(uint32(op&3), 0, false)
				continue
			case 1:
				asked[unique] = true
				b.read(unique, id, 0, 4, op&1 != 0)
			case 2:
				asked[unique] = true
				b.write(unique, id, 0, gen(b.counter.Load()-uint32(op&1)))
			case 3:
				b.raise(uint32(op & 15))
			case 4:
				asked[unique] = true
				b.setTracking(unique, id, 0, op&8 == 0, 1, "x")
			case 5:
				asked[unique] = true
				b.waitWatchers(unique, id, 0, uint64(op&1))
			case 6:
				b.interrupt(unique - uint64(op&15))
			case 7:
				asked[unique] = true
				b.poll(unique, 0, pollReq{id, id, pollSchedule})
			case 8:
				if !inUse(b, id) { // the kernel releases only then
					b.release(id)
				}
			case 9:
				for _, timer := range b.timers {
					timer()
				}
			}
			check(t, b, asked)
		}
	})
}

func inUse(b *bench, id uint64) bool {
	for _, h := range b.readers {
		if h.id == id {
			return true
		}
	}
	for _, w := range b.waiters {
		if w.handle.id == id {
			return true
		}
	}
	return false
}

// check compares the counts with the handles, and every request with having
// one answer, or none while it is blocked.
func check(t *testing.T, b *bench, asked map[uint64]bool) {
	tracked, outdated := 0, 0
	for _, h := range b.handles {
		if h.tracked {
			tracked++
			if b.stale(h) {
				outdated++
			}
		}
	}
	if b.tracked != tracked || b.outdated != outdated {
		t.Fatalf("counts %d/%d, want %d/%d", b.tracked, b.outdated, tracked, outdated)
	}
	for unique := range asked {
		want := 1
		if b.readers[unique] != nil || b.waiters[unique] != nil {
			want = 0
		}
		if b.rec.answers[unique] != want {
			t.Fatalf("request %d has %d answers, want %d", unique, b.rec.answers[unique], want)
		}
	}
	for _, h := range b.readers {
		if b.stale(h) {
			t.Fatal("an outdated reader is blocked")
		}
	}
	if outdated == 0 && len(b.waiters) > 0 {
		t.Fatal("somebody waits for nobody")
	}
	for i, h := range b.pollers {
		if h.pollAt != i+1 || b.handles[h.id] != h {
			t.Fatal("pollers are out of order")
		}
	}
}
