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
}

const ringStart = 4 << 10

func newRing(limit int) *ring { return &ring{limit: limit} }

// add appends line and a newline.
func (r *ring) add(line []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(line) > r.limit-1 {
		line = line[len(line)-(r.limit-1):]
	}
	r.grow(len(line) + 1)
	r.put(line)
	r.put([]byte{'\n'})
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
	r.mu.Lock()
	var all []byte
	if r.full {
		all = append(all, r.buf[r.at:]...)
	}
	all = append(all, r.buf[:r.at]...)
	whole := !r.full
	r.mu.Unlock()
	lines := splitLines(all)
	if !whole && len(lines) > 0 {
		lines = lines[1:] // its beginning was overwritten
	}
	if n > 0 && len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return lines
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
