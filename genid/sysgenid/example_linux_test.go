package sysgenid_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"

	"rouse/genid/sysgenid"
)

// device serves a plain file, so that the examples run anywhere; a service
// opens sysgenid.Path and serves nothing.
func device() (s *sysgenid.Server, c *sysgenid.Client, end func()) {
	dir, err := os.MkdirTemp("", "sysgenid")
	if err != nil {
		panic(err)
	}
	path := filepath.Join(dir, "sysgenid")
	if s, err = sysgenid.Serve(path, sysgenid.Options{Mode: sysgenid.ModeFile}); err != nil {
		panic(err)
	}
	if c, err = sysgenid.Open(path); err != nil {
		panic(err)
	}
	return s, c, func() {
		c.Close()
		s.Close()
		os.RemoveAll(dir)
	}
}

// An event loop: the service adjusts, and what shall not happen before all have
// adjusted waits for its acknowledgement.
func ExampleClient_Watch() {
	machine, client, end := device()
	defer end()
	ctx, stop := context.WithCancel(context.Background())

	machine.Bump(0) // the machine is cloned
	err := client.Watch(ctx, func(_ context.Context, gen uint32) error {
		fmt.Println("new keys for generation", gen)
		stop() // a service would go on
		return nil
	})
	fmt.Println(errors.Is(err, context.Canceled))
	// Output:
	// new keys for generation 1
	// true
}

// A library without a loop: a PRNG that reseeds if its machine was cloned since
// the last call, or during this one.
func ExampleClient_Lazy() {
	machine, client, end := device()
	defer end()

	var source *mathrand.ChaCha8
	lazy := client.Lazy(func(gen uint32) error {
		var seed [32]byte
		if _, err := rand.Read(seed[:]); err != nil {
			return err
		}
		source = mathrand.NewChaCha8(seed)
		fmt.Println("seeded for generation", gen)
		return nil
	})
	draw := func() (v uint64, err error) {
		err = lazy.Do(func() error { v = source.Uint64(); return nil })
		return v, err
	}

	_, _ = draw()
	_, _ = draw()
	machine.Bump(0) // the machine is cloned
	_, _ = draw()
	// Output:
	// seeded for generation 0
	// seeded for generation 1
}

// A payment through a remote interface that takes idempotency keys. The clone
// is made between the request and its answer: the twin sends the same key, so
// the two would pay once together. Each takes it back and pays under a key of
// its own.
func ExampleClient_Transact() {
	machine, client, end := device()
	defer end()
	payments := map[string]int{} // the remote side

	var key string
	cloned := false
	err := client.Transact(context.Background(),
		func(_ context.Context, gen uint32) error {
			key = rand.Text()
			payments[key] = 100
			fmt.Println("paid in generation", gen)
			if !cloned {
				cloned = true
				machine.Bump(0)
			}
			return nil
		},
		func(_ context.Context, gen uint32) error {
			delete(payments, key) // succeeds also if the twin was faster
			fmt.Println("taken back what was paid in generation", gen)
			return nil
		})
	fmt.Println(len(payments), err)
	// Output:
	// paid in generation 0
	// taken back what was paid in generation 0
	// paid in generation 1
	// 1 <nil>
}

// Encrypted records: one that was sealed before the clone must not be sent
// after it, for the twin holds the same key and the next nonce.
func ExampleClient_SealThenCheck() {
	machine, client, end := device()
	defer end()

	cloned := false
	err := client.SealThenCheck(
		func(gen uint32) ([]byte, error) {
			record := fmt.Appendf(nil, "sealed under a key of generation %d", gen)
			if !cloned {
				cloned = true
				machine.Bump(0)
			}
			return record, nil
		},
		func(record []byte) error {
			fmt.Printf("sent: %s\n", record)
			return nil
		})
	fmt.Println(err)
	// Output:
	// sent: sealed under a key of generation 1
	// <nil>
}
