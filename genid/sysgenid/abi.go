package sysgenid

import (
	"time"
)

// Path is where clients look for the device.
const Path = "/dev/sysgenid"

// PageSize is the length of the mapped page and the size that the served file
// reports, in bytes. The counter is the native-endian u32 at its start, then
// comes a u32 of bits that tell what more the page does, and the rest is zero.
const PageSize = 4096

// pageWakes is the bit, in the page's second word, that says: whoever waits for
// the counter with FUTEX_WAIT is woken after it changed. A kernel driver's page
// has zero there.
const pageWakes = 1

// The ioctl numbers of the sysgenid driver, as proposed to Linux and shipped
// in Amazon Linux: _IO(0xE4, n), whose direction and size bits are zero, so
// that every argument is passed by value.
const (
	// SetWatcherTracking takes a bool: whether this open file description
	// counts as a watcher.
	SetWatcherTracking uintptr = 0xE4<<8 | 1
	// WaitWatchers takes a time-out in milliseconds (0: for ever) and returns
	// once no tracked watcher is outdated.
	WaitWatchers uintptr = 0xE4<<8 | 2
	// TriggerGenUpdate takes the least generation wanted and sets the counter
	// to max(argument, counter+1).
	TriggerGenUpdate uintptr = 0xE4<<8 | 3
)

// Mode is the way a device is served.
type Mode int

const (
	// ModeAuto takes the best way that this kernel really offers.
	ModeAuto Mode = iota
	// ModePassthrough serves mappings from a memfd (FUSE_PASSTHROUGH, Linux 6.9).
	ModePassthrough
	// ModePageCache serves mappings from the FUSE page cache.
	ModePageCache
	// ModeFile keeps the mapped counter in a plain tmpfs file: no
	// acknowledgements, no blocking reads, no ioctls.
	ModeFile
)

// String returns the name used in reports and flags.
func (m Mode) String() string {
	switch m {
	case ModeAuto:
		return "auto"
	case ModePassthrough:
		return "passthrough"
	case ModePageCache:
		return "pagecache"
	case ModeFile:
		return "file"
	}
	return "invalid"
}

// fault is an error that needs no work before main runs.
type fault string

func (f fault) Error() string { return string(f) }

// Errors that a caller may act on.
var (
	// ErrNative says that the path already is a kernel driver's device, which
	// must be used (OpenNative) and never shadowed.
	ErrNative error = fault("a kernel driver already serves this device")
	// ErrStale says that an acknowledged generation is not the current one any
	// more: adjust again.
	ErrStale error = fault("not the current generation")
	// ErrNoAcknowledge says that what stands at the path keeps a mapped counter
	// only, and knows neither watchers nor acknowledgements.
	ErrNoAcknowledge error = fault("acknowledgements are not available: the device is a plain file")
	// ErrClosed says that the client or server was closed.
	ErrClosed error = fault("closed")
)

// Watcher is one open file description of the device.
type Watcher struct {
	ID           uint64 `json:"id"`
	PID          int    `json:"pid"`  // process that used it last; 0 if it is out of our pid namespace
	Comm         string `json:"comm"` // that process's name, empty if it is gone
	UID          uint32 `json:"uid"`  // of the opener, by its fsuid
	Acknowledged uint32 `json:"acknowledged"`
	Tracked      bool   `json:"tracked"`
	// OutdatedSince is when the first generation after the acknowledged one
	// came; zero if up to date.
	OutdatedSince time.Time `json:"outdated_since,omitzero"`
}

// wrapped is an error with what was done, and to what. It is fmt.Errorf("%s: %w") in a third of the code.
type wrapped struct {
	what string
	err  error
}

func (w *wrapped) Error() string { return w.what + ": " + w.err.Error() }
func (w *wrapped) Unwrap() error { return w.err }

func wrap(what string, err error) error { return &wrapped{what, err} }
