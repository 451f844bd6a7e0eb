//go:build !linux

package sysgenid

import (
	"context"
	"fmt"
	"sync"
)

// Client is one watcher. This system has no such device, so the client is the
// one of a machine that is never cloned.
type Client struct {
	once sync.Once
	done chan struct{}
}

// Open returns a client whose generation is the constant 0.
func Open(path string) (*Client, error) { return &Client{done: make(chan struct{})}, nil }

// Present reports false.
func (c *Client) Present() bool { return false }

// Generation returns 0.
func (c *Client) Generation() uint32 { return 0 }

// Track does nothing.
func (c *Client) Track(on bool) error { return nil }

// Ack does nothing for generation 0; there is no other.
func (c *Client) Ack(gen uint32) error {
	if gen != 0 {
		return fmt.Errorf("acknowledge generation %d: %w", gen, ErrStale)
	}
	return nil
}

// Wait waits for its context, or Close.
func (c *Client) Wait(ctx context.Context) (uint32, error) {
	select {
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-c.done:
		return 0, ErrClosed
	}
}

// Close ends Wait.
func (c *Client) Close() error {
	err := ErrClosed
	c.once.Do(func() {
		close(c.done)
		err = nil
	})
	return err
}
