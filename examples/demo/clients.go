package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"rouse/vmm"
)

// answer is what the server says on /.
type answer struct {
	Random     string `json:"random"`
	TicketKey  string `json:"ticket-key"`
	Requests   int    `json:"requests"`
	Generation uint32 `json:"generation"`
}

// newClient makes a client with connections of its own. The server's certificate is made at its start, so
// there is nobody to have signed it.
func newClient() *http.Client {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext:     dialer.DialContext,
		ReadBufferSize:  4 << 10,
	}}
}

func url(port uint16, path string) string { return fmt.Sprintf("https://127.0.0.1:%d%s", port, path) }

// ask asks once over a new connection.
func ask(ctx context.Context, port uint16) (answer, error) {
	c := newClient()
	defer c.CloseIdleConnections()
	return askWith(ctx, c, port)
}

func askWith(ctx context.Context, c *http.Client, port uint16) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url(port, "/"), nil)
	if err != nil {
		return answer{}, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	var a answer
	return a, json.NewDecoder(resp.Body).Decode(&a)
}

// Sizes of the transfer, in bytes, and the pace of its reader.
const (
	transferBytes = 6 << 20
	beginAt       = 1 << 20
	chunk         = 32 << 10
	pause         = 2 * time.Millisecond
)

// transfer is how the client fared that was in the middle of one.
type transfer struct {
	Bytes     int     `json:"bytes"`
	AtQuiesce int     `json:"at-quiesce"`
	Received  int     `json:"received"`
	WaitedMS  float64 `json:"waited-for-after-quiesce-ms"`
}

// clients are what the server has to do with when it is baked.
type clients struct {
	idle     []*http.Client
	transfer transfer
	cancel   context.CancelFunc

	wg   sync.WaitGroup
	done chan error
}

// begin opens idle connections and starts the transfer. It returns in the middle of it.
func (c *clients) begin(ctx context.Context, vm *vmm.VM) error {
	forwards, err := vm.Forwards(ctx)
	if err != nil {
		return err
	}
	port := forwards[0].HostPort
	for range 3 {
		idle := newClient()
		if _, err := askWith(ctx, idle, port); err != nil {
			return err
		}
		c.idle = append(c.idle, idle)
	}
	middle := make(chan struct{})
	c.done = make(chan error, 1)
	ctx, c.cancel = context.WithCancel(ctx)
	c.wg.Go(func() { c.done <- c.receive(ctx, port, middle) })
	select {
	case <-middle:
		return nil
	case err := <-c.done:
		return errors.Join(errors.New("the transfer ended before its middle"), err)
	}
}

// receive reads the transfer slowly and checks every byte.
func (c *clients) receive(ctx context.Context, port uint16, middle chan<- struct{}) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url(port, fmt.Sprintf("/stream?bytes=%d", transferBytes)), nil)
	if err != nil {
		return err
	}
	resp, err := newClient().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	buffer := make([]byte, chunk)
	c.transfer.Bytes = transferBytes
	for got := 0; ; {
		n, err := io.ReadFull(resp.Body, buffer)
		for i := range n {
			if buffer[i] != byte((got+i)%251) {
				return fmt.Errorf("byte %d is wrong", got+i)
			}
		}
		if got < beginAt && got+n >= beginAt {
			c.transfer.AtQuiesce = got + n
			close(middle)
		}
		got += n
		c.transfer.Received = got
		if err != nil {
			if got == transferBytes {
				return nil
			}
			return fmt.Errorf("%d of %d bytes: %w", got, transferBytes, err)
		}
		time.Sleep(pause)
	}
}

// finish runs when the guest says that it is quiesced: gate shut, services frozen. Whatever the client
// still gets now had left the guest before.
func (c *clients) finish(ctx context.Context, _ *vmm.VM) error {
	began := time.Now()
	select {
	case err := <-c.done:
		c.transfer.WaitedMS = milliseconds(time.Since(began))
		return err
	case <-time.After(20 * time.Second):
		return fmt.Errorf("the transfer stands at %d of %d bytes although the guest says that it is empty", c.transfer.Received, transferBytes)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *clients) close() {
	if c.cancel != nil {
		c.cancel()
	}
	c.wg.Wait()
	for _, idle := range c.idle {
		idle.CloseIdleConnections()
	}
}
