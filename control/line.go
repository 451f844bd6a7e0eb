package control

import (
	"bytes"
	"io"
)

type frameKind int

const (
	frameLine    frameKind = iota // a line, newline removed, not blank
	frameReset                    // a 0xFF byte: whatever came before it on its line is dropped
	frameTooLong                  // a line over the limit was skipped
)

// frames cuts a stream into lines. It never holds more than the longest line and one read.
type frames struct {
	r       io.Reader
	max     int    // longest line; MaxLine if zero
	pending []byte // read, not yet looked at; a part of chunk
	line    []byte // the line so far
	skip    bool   // inside a line that is too long
	chunk   [4096]byte
}

// next gives the next frame; the line is the caller's. A read error is returned as it is, and reading
// may go on afterwards where the reader allows that.
func (f *frames) next() (frameKind, []byte, error) {
	for {
		for len(f.pending) > 0 {
			if kind, line, ok := f.take(); ok {
				return kind, line, nil
			}
		}
		n, err := f.r.Read(f.chunk[:])
		f.pending = f.chunk[:n]
		if n == 0 && err != nil {
			return 0, nil, err
		}
	}
}

// take moves pending bytes up to and including the next newline or sentinel into the line.
func (f *frames) take() (kind frameKind, line []byte, ok bool) {
	end := indexEnd(f.pending)
	if end < 0 {
		f.add(f.pending)
		f.pending = nil
		return 0, nil, false
	}
	part, mark := f.pending[:end], f.pending[end]
	f.pending = f.pending[end+1:]
	if mark == sentinel {
		f.drop()
		return frameReset, nil, true
	}
	f.add(part)
	line, skipped := f.line, f.skip
	f.drop()
	if skipped {
		return frameTooLong, nil, true
	}
	line = bytes.TrimSpace(line)
	return frameLine, line, len(line) > 0
}

// indexEnd is the offset of the first newline or sentinel, or -1.
func indexEnd(p []byte) int {
	end := bytes.IndexByte(p, '\n')
	if end >= 0 {
		p = p[:end]
	}
	if i := bytes.IndexByte(p, sentinel); i >= 0 {
		return i
	}
	return end
}

func (f *frames) add(p []byte) {
	limit := f.max
	if limit == 0 {
		limit = MaxLine
	}
	if f.skip || len(f.line)+len(p) > limit {
		f.skip, f.line = true, nil
		return
	}
	f.line = append(f.line, p...)
}

// drop forgets the line so far.
func (f *frames) drop() { f.line, f.skip = nil, false }
