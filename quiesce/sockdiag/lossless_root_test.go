//go:build root

package sockdiag

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lossy makes the socket drop that share of arriving packets at random: SKF_AD_RANDOM, an ancillary load of classic BPF
// (include/uapi/linux/filter.h).
func (s *sock) lossy(percent uint32) {
	s.t.Helper()
	const random = 0xfffff000 + 56 // SKF_AD_OFF + SKF_AD_RANDOM
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: random},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jt: 1, Jf: 0, K: percent * (1 << 32 / 100)},
		{Code: unix.BPF_RET, K: 0},
		{Code: unix.BPF_RET, K: 0xffffffff},
	}
	s.must(unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}))
}

// flow is one connection whose bytes are numbered.
type flow struct {
	client, server *sock
	sent, received atomic.Uint64
}

func (f *flow) write(stop <-chan struct{}, dice *rand.Rand) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		chunk := make([]byte, 1+dice.IntN(3000))
		for i := range chunk {
			chunk[i] = byte(f.sent.Load() + uint64(i))
		}
		n, err := unix.Write(f.client.fd, chunk)
		if err != nil {
			return
		}
		f.sent.Add(uint64(n))
		time.Sleep(time.Duration(dice.IntN(2000)) * time.Microsecond)
	}
}

// read takes bytes at its own pace, and checks that each is the next one.
func (f *flow) read(t *testing.T, dice *rand.Rand) {
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(f.server.fd, buf[:1+dice.IntN(len(buf))])
		if err != nil || n <= 0 {
			return
		}
		for i, b := range buf[:n] {
			if want := byte(f.received.Load() + uint64(i)); b != want {
				t.Errorf("byte %d is %d, not %d", f.received.Load()+uint64(i), b, want)
				return
			}
		}
		f.received.Add(uint64(n))
	}
}

// TestWaitLosesNothing: many writers and readers over links that lose one packet in ten; at a random moment no more is
// written. When Wait says that nothing is left the link is cut for good, and every byte written must have arrived: what Wait
// had overlooked on its way could not any more.
func TestWaitLosesNothing(t *testing.T) {
	const seed, rounds, flows = 4, 3, 12
	dice := rand.New(rand.NewPCG(seed, 0))
	for round := range rounds {
		enterNetns(t)
		ins := inspect(t, Options{})
		all := make([]*flow, flows)
		stop := make(chan struct{})
		var writers, readers sync.WaitGroup
		for i := range all {
			f := &flow{}
			_, f.client, f.server = tcpPair(t, []string{"127.0.0.1", "::1"}[i%2])
			f.client.lossy(10)
			f.server.lossy(10)
			all[i] = f
			one, two := rand.New(rand.NewPCG(seed, uint64(round*100+i))), rand.New(rand.NewPCG(seed+1, uint64(round*100+i)))
			writers.Go(func() { f.write(stop, one) })
			readers.Go(func() { f.read(t, two) })
		}
		for all[0].sent.Load() == 0 { // a busy machine takes its time to let anybody write
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(50+dice.IntN(100)) * time.Millisecond) // the moment of the quiesce
		close(stop)
		writers.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
		left, err := ins.Wait(ctx, WaitOptions{})
		cancel()
		if err != nil {
			t.Fatalf("%v, left:\n%s", err, list(left))
		}
		for _, f := range all {
			f.client.deaf(0)
			f.server.deaf(0)
			f.client.must(unix.Shutdown(f.server.fd, unix.SHUT_RD)) // ends the reader once it has taken what is there
		}
		readers.Wait()
		total := uint64(0)
		for i, f := range all {
			total += f.sent.Load()
			if f.sent.Load() != f.received.Load() {
				t.Errorf("seed %d round %d flow %d: %d bytes written, %d arrived", seed, round, i, f.sent.Load(), f.received.Load())
			}
		}
		if total == 0 {
			t.Errorf("seed %d round %d: nothing was written", seed, round)
		}
	}
}
