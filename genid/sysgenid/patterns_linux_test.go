package sysgenid

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"path/filepath"
	"testing"
)

// These tests use a plain file, which needs no privilege, and change the
// generation at the worst moment. Each shows first that the same work without
// the pattern goes wrong there.

func serveFile(t testing.TB) (*Server, *Client) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sysgenid")
	s, err := Serve(path, Options{Mode: ModeFile})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return s, c
}

// drbg is a PRNG in user space; a copy of it is what a clone has.
type drbg struct{ source mathrand.ChaCha8 }

func (d *drbg) reseed(uint32) error {
	var seed [32]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return err
	}
	d.source = *mathrand.NewChaCha8(seed)
	return nil
}

func (d *drbg) next() uint64 { return d.source.Uint64() }

func TestLazy(t *testing.T) {
	s, c := serveFile(t)
	var one drbg
	lazy := c.Lazy(one.reseed)
	draw := func(l *Lazy, d *drbg) (v uint64) {
		if err := l.Do(func() error { v = d.next(); return nil }); err != nil {
			t.Fatal(err)
		}
		return v
	}
	first, before := draw(lazy, &one), one
	if second := draw(lazy, &one); second == first {
		t.Fatal("the PRNG does not move")
	}
	if one == before {
		t.Fatal("nothing was drawn")
	}

	// A clone: the state is copied, and so is what Lazy remembers.
	two := one
	lazyTwo := c.Lazy(two.reseed)
	lazyTwo.gen, lazyTwo.fresh = lazy.gen, lazy.fresh
	a, b := one, two
	if a.next() != b.next() {
		t.Fatal("without the pattern twins are expected to draw the same")
	}
	s.Bump(0)
	if draw(lazy, &one) == draw(lazyTwo, &two) {
		t.Error("twins drew the same number")
	}
}

// TestLazyMidCall has the clone made after the number was computed and before
// it is returned.
func TestLazyMidCall(t *testing.T) {
	s, c := serveFile(t)
	var d drbg
	lazy := c.Lazy(d.reseed)
	var drawn []uint64
	err := lazy.Do(func() error {
		drawn = append(drawn, d.next())
		if len(drawn) == 1 {
			s.Bump(0)
		}
		return nil
	})
	if err != nil || len(drawn) != 2 || drawn[0] == drawn[1] {
		t.Errorf("drew %v, %v: what a twin also has was returned", drawn, err)
	}
}

func TestLazyFails(t *testing.T) {
	_, c := serveFile(t)
	broken := errors.New("no entropy")
	fail := true
	lazy := c.Lazy(func(uint32) error {
		if fail {
			return broken
		}
		return nil
	})
	used := false
	if err := lazy.Do(func() error { used = true; return nil }); !errors.Is(err, broken) || used {
		t.Errorf("%v, used %v: state that could not be adjusted was used", err, used)
	}
	fail = false
	if err := lazy.Do(func() error { return nil }); err != nil {
		t.Error(err)
	}
}

// remote is a store that keeps one change per idempotency key.
type remote map[string]int

func (r remote) total() (sum int) {
	for _, n := range r {
		sum += n
	}
	return sum
}

// TestTransact: two twins each pay once. The clone is made in the middle of the
// submission, so both hold the first key.
func TestTransact(t *testing.T) {
	naive := remote{}
	for range 2 { // both go on with the key that was drawn before the clone
		naive["key"] = 100
	}
	if naive.total() != 100 {
		t.Fatal("without the pattern one of two payments is expected to be lost")
	}

	s, c := serveFile(t)
	store := remote{}
	twin := func(cloned func()) error {
		key := "key"
		submit := func(context.Context, uint32) error {
			store[key] = 100
			cloned()
			return nil
		}
		revert := func(context.Context, uint32) error {
			delete(store, key)
			key = rand.Text()
			return nil
		}
		return c.Transact(t.Context(), submit, revert)
	}
	for range 2 {
		once := true
		err := twin(func() {
			if once {
				once = false
				s.Bump(0)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if store.total() != 200 || len(store) != 2 {
		t.Errorf("the store holds %v, want two payments of 100", store)
	}
}

func TestTransactErrors(t *testing.T) {
	s, c := serveFile(t)
	broken := errors.New("broken")
	good := func(context.Context, uint32) error { return nil }
	bad := func(context.Context, uint32) error { return broken }
	moving := func(context.Context, uint32) error { s.Bump(0); return nil }
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, row := range []struct {
		name           string
		ctx            context.Context
		submit, revert func(context.Context, uint32) error
		want           error
	}{
		{"submit fails", t.Context(), bad, good, broken},
		{"revert fails", t.Context(), moving, bad, broken},
		{"context ended", ended, good, good, context.Canceled},
	} {
		if err := c.Transact(row.ctx, row.submit, row.revert); !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", row.name, err, row.want)
		}
	}
}

// sealer encrypts with AES-GCM; its nonce is a counter, as in TLS.
type sealer struct {
	aead  cipher.AEAD
	count uint64
}

func newSealer(t *testing.T) *sealer {
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return &sealer{aead: aead}
}

// seal uses the generation as a part of the nonce.
func (s *sealer) seal(gen uint32, text []byte) []byte {
	s.count++
	nonce := binary.BigEndian.AppendUint32(nil, gen)
	nonce = binary.BigEndian.AppendUint64(nonce, s.count)
	return s.aead.Seal(nonce, nonce, text, nil)
}

func TestSealThenCheck(t *testing.T) {
	srv, c := serveFile(t)
	// One machine seals and is cloned before sending. Both twins then hold the
	// same record, and go on counting from the same nonce.
	naive := newSealer(t)
	naive.seal(0, []byte("before"))
	twin := *naive
	one, two := naive.seal(0, []byte("from one")), twin.seal(0, []byte("from two"))
	if !bytes.Equal(one[:12], two[:12]) {
		t.Fatal("without the pattern twins are expected to use one nonce twice")
	}

	s := newSealer(t)
	var sealed, sent [][]byte
	err := c.SealThenCheck(
		func(gen uint32) ([]byte, error) {
			sealed = append(sealed, s.seal(gen, []byte("secret")))
			if len(sealed) == 1 {
				srv.Bump(0)
			}
			return sealed[len(sealed)-1], nil
		},
		func(record []byte) error { sent = append(sent, record); return nil })
	if err != nil || len(sent) != 1 || !bytes.Equal(sent[0], sealed[1]) || bytes.Equal(sealed[0][:12], sealed[1][:12]) {
		t.Errorf("sealed %d, sent %d, %v: a record of the old generation went out", len(sealed), len(sent), err)
	}
}

// TestWatch: a generation that comes while adjusting is adjusted to, and only
// then acknowledged.
func TestWatch(t *testing.T) {
	s, c := serveFile(t)
	s.Bump(0)
	ctx, cancel := context.WithCancel(t.Context())
	var seen []uint32
	err := c.Watch(ctx, func(_ context.Context, gen uint32) error {
		seen = append(seen, gen)
		switch len(seen) {
		case 1:
			s.Bump(0)
			if err := c.Ack(gen); !errors.Is(err, ErrStale) {
				t.Errorf("acknowledging the generation that is gone: %v", err)
			}
		case 2:
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || fmt.Sprint(seen) != "[1 2]" {
		t.Errorf("adjusted to %v, %v", seen, err)
	}
	broken := errors.New("broken")
	s.Bump(0)
	err = c.Watch(t.Context(), func(context.Context, uint32) error { return broken })
	if !errors.Is(err, broken) {
		t.Errorf("Watch with a failing adjust: %v", err)
	}
	if gen, err := c.Wait(t.Context()); gen != 3 || err != nil {
		t.Errorf("after a failing adjust it is up to date: %d, %v", gen, err)
	}
}

func TestAbsent(t *testing.T) {
	c, err := Open(filepath.Join(t.TempDir(), "nothing"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Present() || c.Generation() != 0 || c.Track(true) != nil || c.Ack(0) != nil {
		t.Error("an absent device is not quiet")
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if _, err := c.Wait(ctx); !errors.Is(err, cause) {
		t.Errorf("Wait: %v", err)
	}
	waited := make(chan error)
	go func() {
		_, err := c.Wait(context.Background())
		waited <- err
	}()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-waited; !errors.Is(err, ErrClosed) {
		t.Errorf("Wait beside Close: %v", err)
	}
	if err := c.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("Close twice: %v", err)
	}
}

func TestModeNames(t *testing.T) {
	for mode, want := range map[Mode]string{
		ModeAuto: "auto", ModePassthrough: "passthrough", ModePageCache: "pagecache", ModeFile: "file", 9: "invalid",
	} {
		if mode.String() != want {
			t.Errorf("%d: %s", int(mode), mode)
		}
	}
	if _, err := Serve(filepath.Join(t.TempDir(), "x"), Options{Mode: 9}); err == nil {
		t.Error("an invalid mode was served")
	}
}

var sink uint32

// BenchmarkGeneration must be as good as BenchmarkAtomicLoad.
func BenchmarkGeneration(b *testing.B) {
	_, c := serveFile(b)
	for b.Loop() {
		sink = c.Generation()
	}
}

func BenchmarkAtomicLoad(b *testing.B) {
	_, c := serveFile(b)
	word := &c.word
	for b.Loop() {
		sink = *word.Load()
	}
}
