package genid

import "rouse/internal/fmt"

// IDSize is the length of a VMGenID in bytes ("Virtual Machine Generation ID", Microsoft, 2012).
const IDSize = 16

// ID is a VMGenID as it stands in memory.
type ID [IDSize]byte

// IsZero says that the bytes are not an id: unreadable memory reads as zeros.
func (id ID) IsZero() bool { return id == ID{} }

// String writes the id as hypervisors take it on their command lines: the first three groups of a GUID
// are little-endian in memory.
func (id ID) String() string {
	return fmt.Sprintf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%x-%x",
		id[3], id[2], id[1], id[0], id[5], id[4], id[7], id[6], id[8:10], id[10:16])
}

// fault is an error that needs no work before main runs.
type fault string

func (f fault) Error() string { return string(f) }

// wrapped is an error with what was done, and to what. It is fmt.Errorf("%s: %w") in a third of the code.
type wrapped struct {
	what string
	err  error
}

func (w *wrapped) Error() string { return w.what + ": " + w.err.Error() }
func (w *wrapped) Unwrap() error { return w.err }

func wrap(what string, err error) error { return &wrapped{what, err} }
