package service

import (
	"strconv"
	"strings"
	"time"
)

// message is what one datagram of the sd_notify(3) protocol says.
type message struct {
	_                          incomparable
	ready, reloading, stopping bool
	watchdog, trigger          bool // WATCHDOG=1, WATCHDOG=trigger
	status                     string
	hasStatus                  bool
	mainPID                    int
	extend                     time.Duration
	watchdogEvery              time.Duration // WATCHDOG_USEC
	fdStore, fdRemove          bool
	fdName                     string
	barrier                    bool
	rouse                      string // X_ROUSE: the answer to a notify hook
}

// parseMessage reads KEY=VALUE lines. Unknown keys (ERRNO, BUSERROR and MONOTONIC_USEC too) and bad values are passed over: the protocol has
// no answer, and systemd does the same.
func parseMessage(data []byte) message {
	var m message
	for _, line := range strings.Split(string(data), "\n") {
		key, value, ok := strings.Cut(line, "=")
		if ok {
			m.set(key, value)
		}
	}
	return m
}

func (m *message) set(key, value string) {
	on := value == "1"
	switch key {
	case "READY":
		m.ready = on
	case "RELOADING":
		m.reloading = on
	case "STOPPING":
		m.stopping = on
	case "STATUS":
		m.status, m.hasStatus = clean(value), true
	case "MAINPID":
		if n, _ := strconv.Atoi(value); n > 1 {
			m.mainPID = n
		}
	case "WATCHDOG":
		m.watchdog, m.trigger = on, value == "trigger"
	case "WATCHDOG_USEC":
		m.watchdogEvery = micros(value)
	case "EXTEND_TIMEOUT_USEC":
		m.extend = micros(value)
	case "FDSTORE":
		m.fdStore = on
	case "FDSTOREREMOVE":
		m.fdRemove = on
	case "FDNAME":
		m.fdName = value
	case "X_ROUSE":
		m.rouse = value
	case "BARRIER":
		m.barrier = on
	}
}

// maxMicros keeps a duration from overflowing: about 292 years.
const maxMicros = uint64(1<<63-1) / 1000

func micros(s string) time.Duration {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(min(n, maxMicros)) * time.Microsecond
}

// clean keeps a service from writing control characters to the console of whoever reads its status.
func clean(s string) string {
	if len(s) > 256 {
		s = s[:256]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return '?'
		}
		return r
	}, s)
}
