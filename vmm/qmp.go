package vmm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
)

// QMPError is an error that QEMU answered with.
type QMPError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *QMPError) Error() string { return e.Desc }

// Event is something that QEMU tells unasked: STOP, RESUME, SHUTDOWN, GUEST_PANICKED and so on.
type Event struct {
	Name string          `json:"event"`
	Data json.RawMessage `json:"data"`
}

type qmpMessage struct {
	Event
	QMP    json.RawMessage `json:"QMP"`
	Return json.RawMessage `json:"return"`
	Error  *QMPError       `json:"error"`
	ID     string          `json:"id"`
}

// qmp is a QEMU monitor connection (docs/interop/qmp-spec.txt).
type qmp struct {
	conn    net.Conn
	onEvent func(Event) // called from the reader; must not block

	mu      sync.Mutex // held for map and counter, and while writing one line
	next    uint64
	waiting map[string]chan qmpMessage

	done chan struct{} // closed when the connection has ended
	err  error         // why, set before done is closed
}

// newQMP reads the greeting and leaves the negotiation mode.
func newQMP(ctx context.Context, conn net.Conn, onEvent func(Event)) (*qmp, error) {
	q := &qmp{conn: conn, onEvent: onEvent, waiting: map[string]chan qmpMessage{}, done: make(chan struct{})}
	greeted := make(chan struct{})
	go q.read(greeted)
	select {
	case <-greeted:
	case <-q.done:
		return nil, fmt.Errorf("qmp greeting: %w", q.err)
	case <-ctx.Done():
		conn.Close()
		return nil, fmt.Errorf("qmp greeting: %w", ctx.Err())
	}
	if err := q.do(ctx, "qmp_capabilities", nil, nil); err != nil {
		conn.Close()
		return nil, err
	}
	return q, nil
}

func (q *qmp) read(greeted chan<- struct{}) {
	r := bufio.NewReader(q.conn)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			q.end(err)
			return
		}
		var m qmpMessage
		if err := json.Unmarshal(line, &m); err != nil {
			q.end(fmt.Errorf("qmp line: %w", err))
			return
		}
		switch {
		case m.QMP != nil && greeted != nil:
			close(greeted)
			greeted = nil
		case m.Name != "":
			q.onEvent(m.Event)
		default:
			q.answer(m)
		}
	}
}

func (q *qmp) answer(m qmpMessage) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c := q.waiting[m.ID]; c != nil {
		delete(q.waiting, m.ID)
		c <- m // has room for one
	}
}

func (q *qmp) end(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) {
		err = errors.New("QEMU has closed its monitor")
	}
	q.err = err
	close(q.done)
	q.conn.Close()
}

// do executes a command and decodes its result.
func (q *qmp) do(ctx context.Context, command string, args, result any) error {
	return q.exchange(ctx, command, args, result, func(line []byte) error {
		_, err := q.conn.Write(line)
		return err
	})
}

func (q *qmp) exchange(ctx context.Context, command string, args, result any, write func([]byte) error) error {
	id, c, err := q.send(ctx, command, args, write)
	if err != nil {
		return fmt.Errorf("qmp %s: %w", command, err)
	}
	defer q.forget(id)
	select {
	case m := <-c:
		return decodeAnswer(m, command, result)
	case <-q.done:
		return fmt.Errorf("qmp %s: %w", command, q.err)
	case <-ctx.Done():
		return fmt.Errorf("qmp %s: %w", command, ctx.Err())
	}
}

func decodeAnswer(m qmpMessage, command string, result any) error {
	if m.Error != nil {
		return fmt.Errorf("qmp %s: %w", command, m.Error)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(m.Return, result); err != nil {
		return fmt.Errorf("qmp %s: decode: %w", command, err)
	}
	return nil
}

func (q *qmp) send(ctx context.Context, command string, args any, write func([]byte) error) (string, chan qmpMessage, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.next++
	id := strconv.FormatUint(q.next, 10)
	req := struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        string `json:"id"`
	}{command, args, id}
	data, err := json.Marshal(req)
	if err != nil {
		return "", nil, err
	}
	c := make(chan qmpMessage, 1)
	q.waiting[id] = c
	deadline, _ := ctx.Deadline()         // the zero time is none
	_ = q.conn.SetWriteDeadline(deadline) // a unix socket has deadlines
	if err := write(append(data, '\n')); err != nil {
		delete(q.waiting, id)
		return "", nil, err
	}
	return id, c, nil
}

func (q *qmp) forget(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.waiting, id)
}
