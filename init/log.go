package main

import (
	"bytes"
	"io"
	"os"
	"sync"
	"time"

	"rouse/config"
	"rouse/internal/fmt"
)

// logLines is how many of rouse's own lines are kept for the host.
const logLines = 512

// level is how much a line matters.
type level uint8

const (
	info    level = iota
	warning       // something is degraded, or ends
	off           // no line
)

func parseLevel(name string) level {
	switch name {
	case "warning":
		return warning
	case "off":
		return off
	}
	return info
}

// logger writes lines to the console and the kernel's log, and keeps the last of them. It never blocks
// on a full pipe: the console of a guest is a device that always takes what it is given.
type logger struct {
	console io.Writer
	kmsg    io.Writer // nil while nothing goes there
	began   time.Time

	mu    sync.Mutex // held while a line is written, so that lines do not mix
	lines []string
	count uint64 // of all lines, those that are kept no more too
	// least are the levels from which on lines go there, quiet that services' lines do not go to the console.
	leastConsole, leastKmsg level
	quiet                   bool
}

func newLogger(console io.Writer) *logger {
	return &logger{console: console, began: time.Now(), leastKmsg: off}
}

// configure sets what goes where.
func (l *logger) configure(c config.Log) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leastConsole, l.leastKmsg, l.quiet = parseLevel(c.Console), parseLevel(c.Kmsg), !c.Services
	if l.leastKmsg < off && l.kmsg == nil {
		if f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); err == nil {
			l.kmsg = f
		}
	}
}

// printf writes one line of rouse's own.
func (l *logger) printf(format string, args ...any) { l.write(info, fmt.Sprintf(format, args...)) }

// warn is printf for what somebody has to see.
func (l *logger) warn(format string, args ...any) { l.write(warning, fmt.Sprintf(format, args...)) }

func (l *logger) write(at level, text string) {
	line := fmt.Sprintf("[%9.3f] ", time.Since(l.began).Seconds()) + text
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	l.count++
	if len(l.lines) > logLines {
		l.lines = append(l.lines[:0:0], l.lines[len(l.lines)-logLines:]...)
	}
	if at >= l.leastConsole {
		fmt.Fprintf(l.console, "rouse: %s\r\n", line)
	}
	if at >= l.leastKmsg && l.kmsg != nil {
		// One write is one record; the number is the level of syslog(3).
		fmt.Fprintf(l.kmsg, "<%d>rouse: %s\n", 6-2*at, text)
	}
}

// output writes one line of a service.
func (l *logger) output(service string, line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.quiet {
		return
	}
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
