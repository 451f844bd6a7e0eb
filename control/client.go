package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"rouse/internal/fmt"
)

// DefaultTimeout bounds a call whose context has no deadline.
const DefaultTimeout = 2 * time.Minute

// Client speaks to one guest over one connection. Its methods may be called concurrently; calls are
// sent one at a time, as the protocol has one conversation per connection.
type Client struct {
	conn    io.ReadWriteCloser
	answers chan answer
	writes  chan []byte
	done    chan struct{} // closed when the connection is of no more use
	close   sync.Once
	err     error // why, set before done is closed

	turn  chan struct{} // held by the call that is under way
	next  uint64        // id of the next request
	stale bool          // an answer is still owed: sync before the next command
}

type answer struct {
	delimited bool // a 0xFF byte stood before it
	response
}

// NewClient takes over conn. Nothing is sent before the first call; a connection that may hold the rest
// of an earlier conversation wants a Sync first.
func NewClient(conn io.ReadWriteCloser) *Client {
	c := &Client{
		conn: conn, answers: make(chan answer), writes: make(chan []byte),
		done: make(chan struct{}), turn: make(chan struct{}, 1), next: rand.Uint64() >> 12,
	}
	go c.read()
	go c.write()
	return c
}

// DialUnix connects to a unix socket: the guest's own, or the host's end of its virtio-serial port. The path
// may be longer than a socket address.
func DialUnix(ctx context.Context, path string) (*Client, error) {
	conn, err := DialSocket(ctx, path)
	if err != nil {
		return nil, err
	}
	return NewClient(conn), nil
}

// Close ends the connection. What the guest is doing for it goes on.
func (c *Client) Close() error {
	c.fail(io.ErrClosedPipe)
	return nil
}

func (c *Client) fail(err error) {
	c.close.Do(func() {
		c.err = err
		close(c.done)
		c.conn.Close()
	})
}

// read hands over every answer that parses; half a line from before is not one.
func (c *Client) read() {
	f := frames{r: c.conn}
	delimited := false
	for {
		kind, line, err := f.next()
		if err != nil {
			c.fail(fmt.Errorf("read: %w", err))
			return
		}
		if kind != frameLine {
			delimited = kind == frameReset
			continue
		}
		a := answer{delimited: delimited}
		delimited = false
		if json.Unmarshal(line, &a.response) != nil {
			continue
		}
		select {
		case c.answers <- a:
		case <-c.done:
			return
		}
	}
}

// write keeps a guest that does not read from holding a call beyond its context.
func (c *Client) write() {
	for {
		select {
		case data := <-c.writes:
			if _, err := c.conn.Write(data); err != nil {
				c.fail(fmt.Errorf("write: %w", err))
				return
			}
		case <-c.done:
			return
		}
	}
}

// Sync finds the place in the conversation by guest-sync-delimited: whatever the guest still wanted to
// answer is dropped, by the guest or here. A command that is running goes on without an answer.
func (c *Client) Sync(ctx context.Context) error {
	ctx, cancel := withDefault(ctx)
	defer cancel()
	if err := c.take(ctx, "guest-sync-delimited"); err != nil {
		return err
	}
	defer c.give()
	return c.sync(ctx)
}

func (c *Client) sync(ctx context.Context) error {
	c.stale = true
	token := rand.Int64()
	want := strconv.FormatInt(token, 10)
	data := fmt.Appendf([]byte{sentinel}, "{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%s}}\n", want)
	if err := c.send(ctx, "guest-sync-delimited", data); err != nil {
		return err
	}
	for {
		a, err := c.receive(ctx, "guest-sync-delimited")
		if err != nil {
			return err
		}
		if a.delimited && a.Error == nil && string(a.Return) == want {
			c.stale = false
			return nil
		}
	}
}

// Do executes a command and decodes its result into result, which may be nil. args may be nil. Errors: a
// *CommandError if the guest says no (errors.Is tells ErrRefused and ErrTimeout apart from failures);
// ErrTimeout if ctx ended first, and then the command may still be running; anything else is the connection.
func (c *Client) Do(ctx context.Context, command string, args, result any) error {
	ctx, cancel := withDefault(ctx)
	defer cancel()
	if err := c.take(ctx, command); err != nil {
		return err
	}
	defer c.give()
	if c.stale {
		if err := c.sync(ctx); err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
	}
	a, err := c.exchange(ctx, command, args)
	if err != nil {
		return err
	}
	if a.Error != nil {
		return a.Error
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(a.Return, result); err != nil {
		return fmt.Errorf("%s: decode answer: %w", command, err)
	}
	return nil
}

// exchange sends a request and waits for the answer with its id.
func (c *Client) exchange(ctx context.Context, command string, args any) (answer, error) {
	c.next++
	req := request{Execute: command, ID: strconv.AppendUint(nil, c.next, 10)}
	if args != nil {
		var err error
		if req.Arguments, err = json.Marshal(args); err != nil {
			return answer{}, fmt.Errorf("%s: encode arguments: %w", command, err)
		}
	}
	data, err := json.Marshal(req)
	if err != nil {
		return answer{}, fmt.Errorf("%s: encode: %w", command, err)
	}
	if len(data) > MaxLine {
		return answer{}, fmt.Errorf("%s: request of %d bytes is over %d", command, len(data), MaxLine)
	}
	if err := c.send(ctx, command, append(data, '\n')); err != nil {
		return answer{}, err
	}
	for {
		a, err := c.receive(ctx, command)
		if err != nil {
			c.stale = true
			return answer{}, err
		}
		// An error without id is about a line that the guest could not read: this one, as nothing
		// else is on its way.
		if string(a.ID) == string(req.ID) || len(a.ID) == 0 && a.Error != nil {
			return a, nil
		}
	}
}

// take waits for the turn of this call.
func (c *Client) take(ctx context.Context, command string) error {
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-c.done:
		return fmt.Errorf("%s: %w", command, c.err)
	case <-ctx.Done():
		return ended(ctx, command)
	}
}

func (c *Client) give() { <-c.turn }

func (c *Client) send(ctx context.Context, command string, data []byte) error {
	select {
	case c.writes <- data:
		return nil
	case <-c.done:
		return fmt.Errorf("%s: %w", command, c.err)
	case <-ctx.Done():
		return ended(ctx, command)
	}
}

func (c *Client) receive(ctx context.Context, command string) (answer, error) {
	select {
	case a := <-c.answers:
		return a, nil
	case <-c.done:
		return answer{}, fmt.Errorf("%s: %w", command, c.err)
	case <-ctx.Done():
		return answer{}, ended(ctx, command)
	}
}

// ended tells a deadline from a caller that changed its mind.
func ended(ctx context.Context, command string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w", command, ErrTimeout)
	}
	return fmt.Errorf("%s: %w", command, ctx.Err())
}

func withDefault(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, DefaultTimeout)
}
