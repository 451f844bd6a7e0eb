package control

import (
	"bytes"
	"errors"

	"rouse/internal/fmt"
	"rouse/internal/json"
)

// MaxLine is the longest request or answer in bytes, without its newline. Longer requests are refused.
const MaxLine = 1 << 20

// PortName is the virtio-serial port of the QEMU guest agent (docs/interop/qemu-ga.rst).
const PortName = "org.qemu.guest_agent.0"

// sentinel resets the peer's parser. It can stand in no UTF-8 text, hence in no JSON.
const sentinel = 0xFF

// Error classes. The first two are QEMU's (qapi/error.json); the others let a client tell a time-out and
// a refusal, which may be tried again, from a failure. Clients of the guest agent accept any class.
const (
	ClassGeneric  = "GenericError"
	ClassNotFound = "CommandNotFound"
	ClassTimeout  = "Timeout"
	ClassRefused  = "Refused"
)

// ErrRefused marks what cannot be done now and has changed nothing: another quiesce runs, or the guest is
// frozen. A Guest wraps it; the client's *CommandError matches it.
var ErrRefused = errors.New("refused")

// ErrTimeout is matched by a call whose context ended before the answer came, and by an answer which says
// that the guest ran out of time.
var ErrTimeout = errors.New("timed out")

// ErrFailed is matched by every other error that the guest answered with: it has tried.
var ErrFailed = errors.New("failed")

// CommandError is an error that the guest answered with.
type CommandError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *CommandError) Error() string { return e.Desc }

// Is makes errors.Is work over the wire: each error matches one of ErrTimeout, ErrRefused and ErrFailed.
func (e *CommandError) Is(target error) bool {
	switch target {
	case ErrTimeout:
		return e.Class == ClassTimeout
	case ErrRefused:
		return e.Class == ClassRefused
	case ErrFailed:
		return e.Class != ClassTimeout && e.Class != ClassRefused
	}
	return false
}

type request struct {
	Execute   string          `json:"execute"`
	Arguments json.RawMessage `json:"arguments,omitempty"`
	ID        json.RawMessage `json:"id,omitempty"`
}

type response struct {
	Return json.RawMessage `json:"return,omitempty"`
	Error  *CommandError   `json:"error,omitempty"`
	ID     json.RawMessage `json:"id,omitempty"`
}

// parseRequest reads one line. What comes before the last `{"execute"` is dropped if the line makes no
// sense as a whole: half a request from before a snapshot may stand before the first one of a client that
// does not begin with a 0xFF byte, as libvirt's does not.
func parseRequest(line []byte) (request, error) {
	req, err := decodeRequest(line)
	if err == nil {
		return req, nil
	}
	if i := bytes.LastIndex(line, []byte(`{"execute"`)); i > 0 {
		if req, err2 := decodeRequest(line[i:]); err2 == nil {
			return req, nil
		}
	}
	return req, err
}

func decodeRequest(line []byte) (request, error) {
	var req request
	if err := json.UnmarshalStrict(line, &req); err != nil {
		return request{}, fmt.Errorf("parse request: %w", err)
	}
	if req.Execute == "" {
		return req, errors.New("parse request: no command in \"execute\"")
	}
	return req, nil
}

// encodeResponse gives the line with its newline, and the sentinel before it if delimited.
func encodeResponse(r response, delimited bool) []byte {
	data, err := json.Marshal(r)
	if err != nil || len(data) > MaxLine {
		desc := "answer is longer than 1 MiB"
		if err != nil {
			desc = "encode answer: " + err.Error()
		}
		data, _ = json.Marshal(response{Error: &CommandError{ClassGeneric, desc}, ID: r.ID})
	}
	out := make([]byte, 0, len(data)+2)
	if delimited {
		out = append(out, sentinel)
	}
	return append(append(out, data...), '\n')
}
