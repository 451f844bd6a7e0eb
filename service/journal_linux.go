package service

import (
	"bytes"
	"fmt"
	"os"
	"sync/atomic"
)

const (
	// DefaultLogBytes is how much of a service's output is kept.
	DefaultLogBytes = 64 << 10
	// maxLine is where a line without an end is cut.
	maxLine = 8 << 10
	// queuedLines may wait for Options.Output; what comes faster is left out there, but is still
	// in the ring.
	queuedLines = 256
)

// journal takes what one service prints. One pipe serves all its lives, so that a restart needs
// nothing new and a child that outlives the main process can still speak. The reader never waits
// for Output: a console at 9600 baud must not stop a service in its printf.
type journal struct {
	_       incomparable
	name    string
	r, w    *os.File
	ring    *ring
	queue   chan []byte
	dropped atomic.Uint64
	done    chan struct{}
}

func newJournal(name string, limit int, output func(string, []byte)) (*journal, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, about("log pipe", "", err)
	}
	j := &journal{name: name, r: r, w: w, ring: newRing(limit), done: make(chan struct{})}
	if output != nil {
		j.queue = make(chan []byte, queuedLines)
		go j.pump(output)
	}
	go j.read()
	return j, nil
}

// close ends the journal; processes that still hold the pipe get EPIPE.
func (j *journal) close() {
	j.w.Close()
	j.r.Close()
	<-j.done
	j.ring.close()
}

func (j *journal) read() {
	defer close(j.done)
	if j.queue != nil {
		defer close(j.queue)
	}
	buf := make([]byte, maxLine)
	held := 0
	for {
		n, err := j.r.Read(buf[held:])
		rest := j.lines(buf[:held+n])
		if err != nil {
			if len(rest) > 0 {
				j.line(rest)
			}
			return
		}
		if len(rest) == len(buf) { // no end in sight: cut here
			j.line(rest)
			rest = nil
		}
		held = copy(buf, rest)
	}
}

// lines takes the whole lines from p and returns what is left.
func (j *journal) lines(p []byte) []byte {
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			return p
		}
		j.line(bytes.TrimSuffix(p[:i], []byte{'\r'}))
		p = p[i+1:]
	}
}

func (j *journal) line(p []byte) {
	j.ring.add(p)
	if j.queue == nil {
		return
	}
	if len(j.queue) == cap(j.queue) { // only we fill it, so this cannot change to full behind us
		j.dropped.Add(1)
		return
	}
	j.queue <- bytes.Clone(p)
}

func (j *journal) pump(output func(string, []byte)) {
	var told uint64
	for p := range j.queue {
		output(j.name, p)
		if n := j.dropped.Load(); n != told && len(j.queue) == 0 {
			output(j.name, fmt.Appendf(nil, "[%d lines left out here; the service prints faster than they can be shown]", n-told))
			told = n
		}
	}
}
