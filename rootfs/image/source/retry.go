package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// attempts is how often a blob is asked for, each longer after the one before: connections to registries break in the middle of
// gigabytes.
const attempts = 4

// retried reads a blob and, when its connection breaks, asks for it again and passes over what was read already. That the second try
// gives the same bytes nobody has to believe: their digest is checked behind this.
type retried struct {
	ctx  context.Context
	open func() (io.ReadCloser, error)
	wait time.Duration // before the second try; doubles
	body io.ReadCloser
	at   int64
	try  int
}

func newRetried(ctx context.Context, wait time.Duration, open func() (io.ReadCloser, error)) (io.ReadCloser, error) {
	body, err := open()
	if err != nil {
		return nil, err
	}
	return &retried{ctx: ctx, open: open, wait: wait, body: body, try: 1}, nil
}

func (r *retried) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	r.at += int64(n)
	if err == nil || err == io.EOF {
		return n, err
	}
	if again := r.again(); again != nil {
		return n, errors.Join(err, again)
	}
	return n, nil
}

// again opens the blob anew and goes to where the last one broke.
func (r *retried) again() error {
	var last error
	for ; r.try < attempts; r.wait *= 2 {
		r.try++
		select {
		case <-time.After(r.wait):
		case <-r.ctx.Done():
			return r.ctx.Err()
		}
		body, err := r.open()
		if err == nil {
			if _, err = io.CopyN(io.Discard, body, r.at); err == nil {
				r.body.Close() // what is broken may say so again
				r.body = body
				return nil
			}
			body.Close()
		}
		last = err
	}
	if last == nil {
		return fmt.Errorf("given up after %d tries", attempts)
	}
	return fmt.Errorf("given up after %d tries: %w", attempts, last)
}

func (r *retried) Close() error { return r.body.Close() }
