package source

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// A blob whose connection breaks is asked for again, and comes whole; one that breaks every time, or is cancelled, is an error.
func TestRetried(t *testing.T) {
	whole := strings.Repeat("0123456789", 100)
	broken := errors.New("connection reset")
	cut := func(n int) io.Reader {
		return io.MultiReader(iotest.OneByteReader(strings.NewReader(whole[:n])), iotest.ErrReader(broken))
	}
	for name, c := range map[string]struct {
		tries []io.Reader // nil: cannot be opened
		want  error
	}{
		"at once":           {[]io.Reader{strings.NewReader(whole)}, nil},
		"breaks":            {[]io.Reader{cut(500), cut(700), strings.NewReader(whole)}, nil},
		"breaks before":     {[]io.Reader{cut(500), cut(100), strings.NewReader(whole)}, nil},
		"gone for a moment": {[]io.Reader{cut(500), nil, nil, strings.NewReader(whole)}, nil},
		"for good":          {[]io.Reader{cut(500), cut(500), cut(500), cut(500), strings.NewReader(whole)}, broken},
		"never":             {[]io.Reader{cut(500), nil, nil, nil, strings.NewReader(whole)}, broken},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				left := c.tries
				r, err := newRetried(t.Context(), time.Second, func() (io.ReadCloser, error) {
					one := left[0]
					left = left[1:]
					if one == nil {
						return nil, errors.New("refused")
					}
					return io.NopCloser(one), nil
				})
				must(t, err)
				got, err := io.ReadAll(r)
				if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) || c.want == nil && !bytes.Equal(got, []byte(whole)) {
					t.Errorf("%d bytes, error %v", len(got), err)
				}
			})
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := newRetried(ctx, time.Hour, func() (io.ReadCloser, error) { return io.NopCloser(cut(5)), nil })
	must(t, err)
	cancel()
	if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
