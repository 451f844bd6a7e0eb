package control

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"rouse/internal/fmt"
	"rouse/internal/guard"
	"rouse/internal/json"
)

// ServerOptions has a usable zero value.
type ServerOptions struct {
	Version string                           // told by guest-info
	Log     func(format string, args ...any) // nil is silence; must not block
	// QuiesceTimeout bounds a quiesce that names no time-out itself; 60 s if zero. The guest's own
	// phases should have ended well before: this is the last line.
	QuiesceTimeout time.Duration
	// CommandTimeout bounds every other command; 10 s if zero.
	CommandTimeout time.Duration
	// WriteTimeout is how long an answer waits for a client that does not read; 5 s if zero.
	WriteTimeout time.Duration
	// Exec starts a program for guest-exec; nil turns the family off. It must not wait for the program:
	// only the init knows how to.
	Exec func(ExecRequest) (*Execution, error)
	// Files turns on guest-file-*: the host may read and write every file of the guest.
	Files bool
}

// Limits that keep a careless client from growing the init. One host talks to one guest, with
// a person's tool beside it: they are far above need.
const (
	maxConns   = 32 // per listening socket
	maxWaiting = 16 // requests of one connection that wait behind a running one
	maxRunning = 64 // commands running in the guest at once, abandoned ones included
)

// Server answers on any number of transports at once. Its methods are safe for concurrent use.
type Server struct {
	guest   Guest
	o       ServerOptions
	running chan struct{} // one token per running command
	clock   clock

	quiescing   atomic.Bool  // from the call of Guest.Quiesce until it returns
	filesystems atomic.Int64 // of the last quiesce; what a thaw answers with

	starting sync.Mutex // held while a quiesce begins, and while a program is started
	execs    handles[*Execution]
	files    handles[*os.File]
}

// NewServer starts nothing; the Serve methods do.
func NewServer(g Guest, o ServerOptions) *Server {
	def(&o.QuiesceTimeout, time.Minute)
	def(&o.CommandTimeout, 10*time.Second)
	def(&o.WriteTimeout, 5*time.Second)
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	return &Server{guest: g, o: o, running: make(chan struct{}, maxRunning), clock: clock{setClock, clockFromRTC}}
}

func def(d *time.Duration, v time.Duration) {
	if *d <= 0 {
		*d = v
	}
}

// conn is what a stream needs of a connection.
type conn interface {
	io.ReadWriteCloser
	SetWriteDeadline(time.Time) error
}

// errHostGone is returned by the Read of a connection that outlives its client (a serial port).
var errHostGone = errors.New("host disconnected")

// stream is one connection. The reader goroutine parses and handles syncs at once; all other requests
// are executed one after the other by the worker of the current epoch.
type stream struct {
	s       *Server
	conn    conn
	frames  frames
	epoch   atomic.Uint64 // counts resets; an answer belongs to the epoch of its request
	worker  chan<- request
	lasting bool // the connection outlives a failed write

	writeMu sync.Mutex // held while writing, at most WriteTimeout
	cut     bool       // the last write ended in the middle of a line
}

// serve reads until the connection ends. ctx ends what runs; the caller closes conn when ctx ends.
func (s *Server) serve(ctx context.Context, c conn, lasting bool) error {
	t := &stream{s: s, conn: c, lasting: lasting}
	t.frames.r = c
	defer t.reset()
	for {
		kind, line, err := t.frames.next()
		switch {
		case errors.Is(err, errHostGone):
			t.frames.drop()
			t.reset()
		case err != nil:
			return err
		case kind == frameReset:
			t.reset()
		case kind == frameTooLong:
			t.fail(t.epoch.Load(), nil, &CommandError{ClassGeneric, fmt.Sprintf("request is longer than %d bytes: refused", MaxLine)})
		default:
			t.accept(ctx, line)
		}
	}
}

// reset begins a new epoch: waiting requests are dropped, the running one loses its answer.
func (t *stream) reset() {
	t.epoch.Add(1)
	if t.worker != nil {
		close(t.worker)
		t.worker = nil
	}
}

func (t *stream) accept(ctx context.Context, line []byte) {
	req, err := parseRequest(line)
	if err != nil {
		t.fail(t.epoch.Load(), req.ID, &CommandError{ClassGeneric, err.Error()})
		return
	}
	if req.Execute == "guest-sync" || req.Execute == "guest-sync-delimited" {
		t.sync(req)
		return
	}
	if t.worker == nil {
		t.worker = t.startWorker(ctx)
	}
	select {
	case t.worker <- req:
	default:
		t.fail(t.epoch.Load(), req.ID, &CommandError{ClassRefused, fmt.Sprintf("%s: %d requests are waiting already", req.Execute, maxWaiting)})
	}
}

// sync answers at once, whatever is running, so that a client which gave up finds its place.
func (t *stream) sync(req request) {
	t.reset()
	a, err := decodeArgs(req.Arguments, "id")
	if err == nil && a.ID == nil {
		err = errors.New("argument \"id\" is missing")
	}
	if err != nil {
		t.fail(t.epoch.Load(), req.ID, asCommandError(req.Execute, err))
		return
	}
	ret := strconv.AppendInt(nil, *a.ID, 10)
	t.write(t.epoch.Load(), encodeResponse(response{Return: ret, ID: req.ID}, req.Execute == "guest-sync-delimited"))
}

// startWorker runs requests in order until its channel is closed. It may outlive the connection by the
// command that it is executing.
func (t *stream) startWorker(ctx context.Context) chan<- request {
	requests := make(chan request, maxWaiting)
	epoch := t.epoch.Load()
	go guard.Do(func() {
		for req := range requests {
			if t.epoch.Load() != epoch {
				return
			}
			ret, err := t.s.execute(ctx, req)
			if err != nil {
				t.fail(epoch, req.ID, asCommandError(req.Execute, err))
				continue
			}
			if ret != nil {
				t.write(epoch, encodeResponse(response{Return: ret, ID: req.ID}, false))
			}
		}
	})
	return requests
}

func (t *stream) fail(epoch uint64, id json.RawMessage, e *CommandError) {
	t.write(epoch, encodeResponse(response{Error: e, ID: id}, false))
}

// write sends an answer unless its epoch is over. A socket whose client does not read is closed; on a
// serial port the answer is dropped, and what was cut is ended by a newline before the next one.
func (t *stream) write(epoch uint64, data []byte) {
	t.writeMu.Lock()
	defer t.writeMu.Unlock()
	if t.epoch.Load() != epoch {
		return
	}
	if t.cut {
		data = append([]byte{'\n'}, data...)
	}
	if err := t.conn.SetWriteDeadline(time.Now().Add(t.s.o.WriteTimeout)); err != nil {
		t.s.o.Log("control: set deadline: %v", err)
	}
	n, err := t.conn.Write(data)
	if n > 0 {
		t.cut = n < len(data)
	}
	if err == nil {
		return
	}
	if !t.lasting {
		t.conn.Close()
	}
}

// asCommandError gives an error its class.
func asCommandError(command string, err error) *CommandError {
	var ce *CommandError
	switch {
	case errors.As(err, &ce):
		return ce
	case errors.Is(err, ErrRefused):
		return &CommandError{ClassRefused, command + ": " + err.Error()}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrTimeout):
		return &CommandError{ClassTimeout, command + ": " + err.Error()}
	}
	return &CommandError{ClassGeneric, command + ": " + err.Error()}
}
