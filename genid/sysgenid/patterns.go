package sysgenid

import (
	"context"
	"errors"

	"rouse/internal/fmt"
)

// Watch is the pattern for a service with a loop of its own: it asks to be
// tracked, and at every new generation calls adjust and acknowledges. If the
// generation changed again meanwhile, adjust is called again before anybody is
// told. Watch returns with the context's error, ErrClosed, or adjust's error;
// after the latter the client stays tracked and outdated, so that whoever waits
// for it does not take the failure for an acknowledgement.
func (c *Client) Watch(ctx context.Context, adjust func(ctx context.Context, gen uint32) error) error {
	if err := c.Track(true); err != nil && !errors.Is(err, ErrNoAcknowledge) {
		return err
	}
	for {
		gen, err := c.Wait(ctx)
		if err != nil {
			return err
		}
		if err := adjust(ctx, gen); err != nil {
			return fmt.Errorf("adjust to generation %d: %w", gen, err)
		}
		if err := c.Ack(gen); err != nil && !errors.Is(err, ErrStale) {
			return err
		}
	}
}

// Lazy is the pattern for a library that is called and has no loop, such as a
// PRNG: it compares the mapped generation at every call, for the price of two
// loads, and adjusts only if it must. Its client is not tracked: everybody would
// wait for a call that may never come.
//
// A Lazy is not safe for concurrent use; whatever guards the state that adjust
// renews guards it too.
type Lazy struct {
	client *Client
	adjust func(gen uint32) error
	gen    uint32
	fresh  bool
}

// Lazy returns a Lazy that calls adjust before its first use and after every
// change.
func (c *Client) Lazy(adjust func(gen uint32) error) *Lazy {
	return &Lazy{client: c, adjust: adjust}
}

// Do calls use with state that belongs to the current generation. If the
// generation changed while use ran, a twin may hold the same result: use is
// called again after adjust, and must then forget what it made before.
func (l *Lazy) Do(use func() error) error {
	for {
		gen := l.client.Generation()
		if !l.fresh || gen != l.gen {
			l.fresh = false
			if err := l.adjust(gen); err != nil {
				return fmt.Errorf("adjust to generation %d: %w", gen, err)
			}
			l.gen, l.fresh = gen, true
		}
		err := use()
		if l.client.Generation() == gen {
			return err
		}
	}
}

// Transact is the pattern for a change to a remote store over an interface
// without connections. It submits; if the generation changed meanwhile, a twin
// may have submitted the same, so it reverts and submits anew.
//
// Both calls get the generation that submit began in. Submit must make its
// idempotency key anew at each call, and from the kernel's random numbers; revert
// takes back what was submitted under the last key, succeeds also if that has
// been done already (by the twin), and is called whether or not submit failed.
func (c *Client) Transact(ctx context.Context, submit, revert func(ctx context.Context, gen uint32) error) error {
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		gen := c.Generation()
		err := submit(ctx, gen)
		if c.Generation() == gen {
			return err
		}
		if err := revert(ctx, gen); err != nil {
			return fmt.Errorf("revert what was submitted in generation %d: %w", gen, err)
		}
	}
}

// SealThenCheck is the pattern for who encrypts under a nonce: two different
// records under one nonce break the key. It seals, compares the generation just
// before sending, and seals again, with a nonce (or key) of the new generation,
// if it changed. What changes between the comparison and the wire is for who
// shuts the network; hence send must do nothing but send.
func (c *Client) SealThenCheck(seal func(gen uint32) ([]byte, error), send func(record []byte) error) error {
	for {
		gen := c.Generation()
		record, err := seal(gen)
		if err != nil {
			return err
		}
		if c.Generation() == gen {
			return send(record)
		}
	}
}
