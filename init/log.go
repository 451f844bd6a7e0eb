package main

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"
)

// logLines is how many of rouse's own lines are kept for the host.
const logLines = 512

// logger writes lines to the console and keeps the last of them. It never blocks on a full pipe: the
// console of a guest is a device that always takes what it is given.
type logger struct {
	console io.Writer
	began   time.Time

	mu    sync.Mutex // held while a line is written, so that lines do not mix
	lines []string
}

func newLogger(console io.Writer) *logger { return &logger{console: console, began: time.Now()} }

// printf writes one line of rouse's own.
func (l *logger) printf(format string, args ...any) {
	line := fmt.Sprintf("[%9.3f] ", time.Since(l.began).Seconds()) + fmt.Sprintf(format, args...)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	if len(l.lines) > logLines {
		l.lines = append(l.lines[:0:0], l.lines[len(l.lines)-logLines:]...)
	}
	fmt.Fprintf(l.console, "rouse: %s\r\n", line)
}

// output writes one line of a service.
func (l *logger) output(service string, line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.console, "%s: %s\r\n", service, bytes.TrimRight(line, "\r\n"))
}

// last returns the last n lines.
func (l *logger) last(n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n > len(l.lines) || n <= 0 {
		n = len(l.lines)
	}
	return append([]string(nil), l.lines[len(l.lines)-n:]...)
}
