//go:build root

package sysgenid

import (
	"context"
	"errors"
	"os"
	"testing"
)

func openClient(t *testing.T, path string) *Client {
	t.Helper()
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestClient(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		ctx := t.Context()
		c := openClient(t, d.path)
		if !c.Present() || c.Generation() != 0 {
			t.Errorf("at open: %v, %d", c.Present(), c.Generation())
		}
		if err := c.Track(true); err != nil {
			t.Fatal(err)
		}
		got := make(chan uint32)
		go func() {
			gen, err := c.Wait(ctx)
			if err != nil {
				t.Error(err)
			}
			got <- gen
		}()
		d.awaitAsleep(os.Getpid())
		d.bump(3)
		if gen := <-got; gen != 3 || c.Generation() != 3 {
			t.Errorf("Wait: %d, Generation: %d", gen, c.Generation())
		}
		if gen, err := c.Wait(ctx); gen != 3 || err != nil {
			t.Errorf("Wait before the acknowledgement: %d, %v", gen, err)
		}
		if len(d.watchers("outdated")) != 1 {
			t.Error("not outdated before the acknowledgement")
		}
		if err := c.Ack(2); !errors.Is(err, ErrStale) {
			t.Errorf("Ack of an old generation: %v", err)
		}
		if err := c.Ack(3); err != nil {
			t.Error(err)
		}
		if len(d.watchers("outdated")) != 0 {
			t.Error("outdated after the acknowledgement")
		}
		done, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := c.Wait(done); !errors.Is(err, context.Canceled) {
			t.Errorf("Wait with an ended context: %v", err)
		}
	})
}

func TestClientClose(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, mode Mode) {
		c := openClient(t, d.path)
		got := make(chan error)
		go func() {
			_, err := c.Wait(context.Background())
			got <- err
		}()
		d.awaitAsleep(os.Getpid())
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := <-got; !errors.Is(err, ErrClosed) {
			t.Errorf("Wait: %v", err)
		}
		if err := c.Ack(0); !errors.Is(err, ErrClosed) {
			t.Errorf("Ack: %v", err)
		}
		if c.Generation() != 0 {
			t.Error("generation lost by Close")
		}
		left := 0
		if mode == ModePageCache {
			left = 1 // a mapping holds its description, which is not a tracked one
		}
		d.want("ok", "open %d", left)
	})
}
