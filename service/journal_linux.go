package service

import (
	"bytes"
	"os"
	"sync"
	"sync/atomic"

	"rouse/internal/fmt"
	"rouse/internal/guard"
)

const (
	// DefaultLogBytes is how much of a service's output is kept.
	DefaultLogBytes = 64 << 10
	// maxLine is where a line without an end is cut.
	maxLine = 8 << 10
)

// journal takes what one service prints. One pipe serves all its lives, so that a restart needs
// nothing new and a child that outlives the main process can still speak. The reader never waits
// for who shows or writes the lines: a console at 9600 baud must not stop a service in its printf. They read from
// the ring at their own pace, and miss what was overwritten meanwhile.
type journal struct {
	_         incomparable
	r, w      *os.File
	ring      *ring
	dropped   atomic.Uint64 // lines that somebody missed
	done      chan struct{}
	followers sync.WaitGroup
}

func newJournal(limit int) (*journal, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, about("log pipe", "", err)
	}
	j := &journal{r: r, w: w, ring: newRing(limit), done: make(chan struct{})}
	go guard.Do(j.read)
	return j, nil
}

// close ends the journal; processes that still hold the pipe get EPIPE. What was printed is written, unless that
// takes longer than a disk that works.
func (j *journal) close() {
	j.w.Close()
	j.r.Close()
	<-j.done
	j.ring.close()
	written := make(chan struct{})
	go guard.Do(func() {
		j.followers.Wait()
		close(written)
	})
	awaitClosed(catchUpTimeout, written)
}

// follow gives every line to put, until the journal is closed. Where put was too slow for some, it is given a line that says so.
func (j *journal) follow(put func(line []byte)) {
	defer j.followers.Done()
	var seen uint64
	for {
		lines, count, more := j.ring.since(seen)
		if len(lines) == 0 {
			if more == nil {
				return
			}
			<-more
			continue
		}
		if missed := count - seen - uint64(len(lines)); missed > 0 {
			j.dropped.Add(missed)
			put(fmt.Appendf(nil, "[%d lines left out here; the service prints faster than they can be shown]", missed))
		}
		for _, line := range lines {
			put(line)
		}
		seen = count
	}
}

func (j *journal) read() {
	defer close(j.done)
	buf := make([]byte, 1<<10) // enough for most, and there may be many services
	held := 0
	for {
		n, err := j.r.Read(buf[held:])
		n += held
		rest := j.lines(buf[:n])
		if err != nil {
			if len(rest) > 0 {
				j.ring.add(rest)
			}
			return
		}
		if len(rest) == maxLine { // no end in sight: cut here
			j.ring.add(rest)
			rest = nil
		}
		into := buf
		if n == len(buf) && n < maxLine {
			into = make([]byte, maxLine)
		}
		held = copy(into, rest)
		buf = into
	}
}

// lines takes the whole lines from p and returns what is left.
func (j *journal) lines(p []byte) []byte {
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			return p
		}
		j.ring.add(bytes.TrimSuffix(p[:i], []byte{'\r'}))
		p = p[i+1:]
	}
}
