//go:build root

package sysgenid

import (
	"bufio"
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed testdata/fanout.c
var fanoutC []byte

func benchModes(b *testing.B, f func(b *testing.B, d *device)) {
	for _, mode := range []Mode{ModePassthrough, ModePageCache} {
		b.Run(mode.String(), func(b *testing.B) { f(b, serveIn(b, mode, 0)) })
	}
}

// crowd is a process of many watchers, or of the floor's.
type crowd struct {
	in  io.WriteCloser
	out *bufio.Scanner
}

func gather(b *testing.B, program, how, path string, n int) *crowd {
	b.Helper()
	cmd := exec.Command(program, how, path, strconv.Itoa(n))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	c := &crowd{in, bufio.NewScanner(out)}
	if !c.out.Scan() || c.out.Text() != "ready" {
		b.Fatalf("%s with %d watchers: %q", how, n, c.out.Text())
	}
	return c
}

func (c *crowd) round(b *testing.B) float64 {
	b.Helper()
	if _, err := fmt.Fprintln(c.in); err != nil || !c.out.Scan() {
		b.Fatal("the floor is gone")
	}
	return number(b, c.out.Text())
}

func number(b *testing.B, text string) float64 {
	b.Helper()
	ns, err := strconv.ParseFloat(text, 64)
	if err != nil {
		b.Fatal(err)
	}
	return ns
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// BenchmarkFanout is a bump until the last acknowledgement, beside the floor:
// an eventfd per watcher, written, and answered through a pipe. Rounds of the
// two alternate. Goal: a ratio of 2 at 1000 watchers, linear to 10 000.
func BenchmarkFanout(b *testing.B) {
	program := compile(b, "fanout", fanoutC)
	raiseFileLimit(b, 11000)
	for _, how := range []string{"read", "poll"} {
		for _, n := range []int{1, 100, 1000, 10000} {
			b.Run(fmt.Sprintf("%s/%d", how, n), func(b *testing.B) {
				benchModes(b, func(b *testing.B, d *device) {
					floor := gather(b, program, "floor", "-", n)
					gather(b, program, how, d.path, n)
					var ours, floors []float64
					number(b, d.ask("fan")) // one to warm up
					for b.Loop() {
						ours = append(ours, number(b, d.ask("fan")))
						floors = append(floors, floor.round(b))
					}
					b.ReportMetric(median(ours), "bump-ns")
					b.ReportMetric(median(floors), "floor-ns")
					b.ReportMetric(median(ours)/median(floors), "ratio")
					b.ReportMetric(0, "ns/op")
				})
			})
		}
	}
}

func BenchmarkRead(b *testing.B) {
	benchModes(b, func(b *testing.B, d *device) {
		d.bump(0)
		fd := openedBefore(b, d)
		buf := make([]byte, 4)
		for b.Loop() {
			if n, err := unix.Read(fd, buf); n != 4 {
				b.Fatal(err)
			}
		}
	})
}

// openedBefore returns an outdated descriptor.
func openedBefore(b *testing.B, d *device) int {
	fd := open(b, d.path, unix.O_RDWR|unix.O_NONBLOCK)
	d.bump(0)
	return fd
}

func BenchmarkPoll(b *testing.B) {
	benchModes(b, func(b *testing.B, d *device) {
		fd := openedBefore(b, d)
		for b.Loop() {
			if pollNow(fd, 0) != unix.POLLIN|pollRdNorm {
				b.Fatal("not outdated")
			}
		}
	})
}

func BenchmarkAcknowledge(b *testing.B) {
	benchModes(b, func(b *testing.B, d *device) {
		fd := openedBefore(b, d)
		gen, err := readGen(fd)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if err := acknowledge(uintptr(fd), gen); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkTrigger(b *testing.B) {
	benchModes(b, func(b *testing.B, d *device) {
		fd := openedBefore(b, d)
		for b.Loop() {
			if err := rawIoctl(fd, TriggerGenUpdate, 0); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkMappedLoad(b *testing.B) {
	benchModes(b, func(b *testing.B, d *device) {
		mem := mapShared(b, d.path)
		for b.Loop() {
			sink = load(mem)
		}
	})
}

// fan is one round: how long a bump takes until the last acknowledgement.
func fan(s *Server) string {
	start := time.Now()
	s.Bump(0)
	if err := s.Wait(context.Background()); err != nil {
		return err.Error()
	}
	return strconv.FormatInt(time.Since(start).Nanoseconds(), 10)
}
