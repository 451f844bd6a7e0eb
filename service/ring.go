package service

import "sync"

// ring keeps the last bytes of what a service printed. It never holds more than its limit, and
// starts small: fifty quiet services cost next to nothing.
type ring struct {
	mu    sync.Mutex
	buf   []byte
	limit int
	at    int  // where the next byte goes
	full  bool // buf has wrapped

	count  uint64        // lines added since the start
	more   chan struct{} // closed with the next line; nil while nobody waits
	closed bool
}

const ringStart = 4 << 10

func newRing(limit int) *ring { return &ring{limit: limit} }

// add appends line and a newline.
func (r *ring) add(line []byte) {
	r.mu.Lock()
	if len(line) > r.limit-1 {
		line = line[len(line)-(r.limit-1):]
	}
	r.grow(len(line) + 1)
	r.put(line)
	r.put([]byte{'\n'})
	r.count++
	r.wake()
	r.mu.Unlock()
}

// wake runs under r.mu.
func (r *ring) wake() {
	if r.more != nil {
		close(r.more)
		r.more = nil
	}
}

// close lets nobody wait any longer.
func (r *ring) close() {
	r.mu.Lock()
	r.closed = true
	r.wake()
	r.mu.Unlock()
}

func (r *ring) grow(n int) {
	if r.full || r.at+n <= len(r.buf) || len(r.buf) == r.limit {
		return
	}
	size := max(2*len(r.buf), ringStart)
	for size < r.at+n {
		size *= 2
	}
	bigger := make([]byte, min(size, r.limit))
	copy(bigger, r.buf[:r.at])
	r.buf = bigger
}

func (r *ring) put(p []byte) {
	for len(p) > 0 {
		n := copy(r.buf[r.at:], p)
		p = p[n:]
		r.at += n
		if r.at == len(r.buf) && (len(p) > 0 || len(r.buf) == r.limit) {
			r.at, r.full = 0, true
		}
	}
}

// tail returns copies of the last n whole lines, the oldest first; n <= 0 is all of them.
func (r *ring) tail(n int) [][]byte {
	lines, _, _ := r.since(0)
	if n > 0 && len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return lines
}

// since returns copies of the lines that are kept of those after the first n, and how many there were in all. If it
// has none, more is closed when there is one, or nil if there will be none. An n that is not reached yet is
// of another life of the machine, and counts as 0.
func (r *ring) since(n uint64) (lines [][]byte, count uint64, more <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n > r.count {
		n = 0
	}
	if n < r.count {
		lines = r.lines(r.count - n)
	}
	if len(lines) == 0 && r.more == nil && !r.closed {
		r.more = make(chan struct{})
	}
	return lines, r.count, r.more
}

// lines returns copies of the last n whole lines that are kept. It runs under r.mu, and costs what they are long.
func (r *ring) lines(n uint64) [][]byte {
	size := r.at
	if r.full {
		size = len(r.buf)
	}
	whole, found := 0, uint64(0) // bytes of the whole lines that were found
	for i := 1; i <= size && found <= n; i++ {
		if r.buf[(r.at-i+len(r.buf))%len(r.buf)] == '\n' {
			whole = i - 1
			found++
		}
	}
	if found <= n && !r.full {
		whole = size // the first line has no newline before it
	}
	all := make([]byte, whole)
	from := (r.at - whole + len(r.buf)) % len(r.buf)
	copy(all[copy(all, r.buf[from:]):], r.buf)
	return splitLines(all)
}

func splitLines(all []byte) [][]byte {
	var lines [][]byte
	start := 0
	for i, c := range all {
		if c == '\n' {
			lines = append(lines, all[start:i:i])
			start = i + 1
		}
	}
	return lines
}
