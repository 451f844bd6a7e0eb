//go:build root

package service

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A program as AWS-LC makes of its user: it maps the generation, remembers it at the beginning of
// drawing random bytes, and aborts if it has changed at the end. Threads draw for a fifth of a
// millisecond, then sleep for about as long. They are threads as C has them: the Go runtime must not
// take a thread from a draw that is halfway, so its preemption is off and drawing calls no function.
func init() {
	helpers["draw"] = func(args []string) {
		generation := mapGeneration(args[0], unix.PROT_READ)
		threads, _ := strconv.Atoi(args[1])
		const trial = 1 << 20
		began := time.Now()
		draw(generation, trial)
		rounds := int(trial * 200 * time.Microsecond / time.Since(began))
		for range threads {
			go func() {
				runtime.LockOSThread()
				for {
					draw(generation, rounds)
					_ = unix.Nanosleep(&unix.Timespec{Nsec: 200_000}, nil)
				}
			}()
		}
		sayNotify("READY=1")
		time.Sleep(time.Hour)
	}
}

func draw(generation *atomic.Uint32, rounds int) uint64 {
	before, x := generation.Load(), uint64(1)
	for range rounds {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	if generation.Load() != before {
		fmt.Println("generation moved while drawing")
		os.Exit(134)
	}
	return x
}

func mapGeneration(path string, prot int) *atomic.Uint32 {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	page, err := unix.Mmap(int(f.Fd()), 0, 4096, prot, unix.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	return (*atomic.Uint32)(unsafe.Pointer(&page[0]))
}

// move freezes, changes the generation and thaws, as a clone's resume does, until the service has
// failed or it was done rounds times. It returns how often the service survived.
func move(t *testing.T, settle string, rounds int) int {
	t.Helper()
	path := filepath.Join(publicDir(t), "generation")
	if err := os.WriteFile(path, make([]byte, 4096), 0o644); err != nil {
		t.Fatal(err)
	}
	s := helperSpec("draw", "draw", path, "2")
	s.Settle, s.Ready.Kind = settle, "notify"
	s.Env = append(s.Env, "GODEBUG=asyncpreemptoff=1")
	l := newLab(t, s)
	ctx := testContext(t)
	if err := l.Start(ctx); err != nil {
		t.Fatal(err)
	}
	generation := mapGeneration(path, unix.PROT_READ|unix.PROT_WRITE)
	for i := range rounds {
		if err := errors.Join(l.Settle(ctx), l.Freeze(ctx)); err != nil {
			t.Fatal(err)
		}
		if l.state("draw").PID == 0 {
			return i
		}
		generation.Add(1)
		if err := l.Thaw(ctx); err != nil {
			t.Fatal(err)
		}
		// Time to come to the check at the end of a draw.
		time.Sleep(time.Millisecond)
		if l.state("draw").State != Running {
			return i
		}
	}
	return rounds
}

func TestSettleSavesWhoDraws(t *testing.T) {
	if got := move(t, "require", 25); got != 25 {
		t.Errorf("aborted in round %d of 25 although settled", got)
	}
}

// TestNoSettleKillsWhoDraws keeps the test above honest.
func TestNoSettleKillsWhoDraws(t *testing.T) {
	if got := move(t, "off", 2000); got == 2000 {
		t.Error("survived 2000 rounds without settling: the program proves nothing")
	}
}
