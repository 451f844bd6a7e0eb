//go:build root

package sysgenid

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	//go:embed testdata/fanout.c
	fanoutC []byte
	//go:embed testdata/bench.c
	benchC []byte
)

func benchModes(b *testing.B, f func(b *testing.B, d *device)) {
	for _, mode := range []Mode{ModePassthrough, ModePageCache} {
		b.Run(mode.String(), func(b *testing.B) { f(b, serveIn(b, mode, 0)) })
	}
}

// crowd is a process of many watchers, or of the floor's.
type crowd struct {
	in  io.WriteCloser
	out *bufio.Scanner
	pid int
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
	c := &crowd{in, bufio.NewScanner(out), cmd.Process.Pid}
	if !c.out.Scan() || c.out.Text() != "ready" {
		b.Fatalf("%s with %d watchers: %q", how, n, c.out.Text())
	}
	return c
}

// round is one of the floor's: its duration, and the CPU time of all who took part, in ns.
func (c *crowd) round(b *testing.B) (cost fanCost) {
	b.Helper()
	if _, err := fmt.Fprintln(c.in); err != nil || !c.out.Scan() {
		b.Fatal("the floor is gone")
	}
	if _, err := fmt.Sscan(c.out.Text(), &cost.wall, &cost.cpu); err != nil {
		b.Fatal(err)
	}
	return cost
}

// fanCost is what a round costs, in ns. Other load on the machine shows in the duration and hardly in the CPU time.
type fanCost struct{ wall, cpu float64 }

// costs are those of many rounds.
type costs []fanCost

func (c costs) wall() float64 { return c.median(func(f fanCost) float64 { return f.wall }) }
func (c costs) cpu() float64  { return c.median(func(f fanCost) float64 { return f.cpu }) }

func (c costs) median(of func(fanCost) float64) float64 {
	list := make([]float64, len(c))
	for i := range c {
		list[i] = of(c[i])
	}
	return median(list)
}

// fanRound is one round of the device's.
func (d *device) fanRound(b *testing.B, c *crowd) fanCost {
	b.Helper()
	before := cpuTime(b, c.pid) + cpuTime(b, d.cmd.Process.Pid)
	wall := number(b, d.ask("fan"))
	return fanCost{wall, cpuTime(b, c.pid) + cpuTime(b, d.cmd.Process.Pid) - before}
}

// cpuTime is what a process has used, in ns, by the clock that clock_getcpuclockid(3) names.
func cpuTime(b *testing.B, pid int) float64 {
	b.Helper()
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &t); err != nil {
		b.Fatal(err)
	}
	return float64(t.Nano())
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

// BenchmarkFanout is a bump until the last acknowledgement, beside two floors: "floor", an eventfd per
// watcher, written, and answered through a pipe, and "confirm", where the watcher also waits for the
// verdict on its answer, as a write to the device does. Rounds alternate. Goal: a ratio of 2 at 1000
// watchers, linear to 10 000.
func BenchmarkFanout(b *testing.B) {
	program := compile(b, "fanout", fanoutC)
	raiseFileLimit(b, 11000)
	for _, how := range []string{"read", "poll", "page"} {
		for _, n := range []int{1, 100, 1000, 10000} {
			b.Run(fmt.Sprintf("%s/%d", how, n), func(b *testing.B) {
				benchModes(b, func(b *testing.B, d *device) {
					if how == "page" && pageBits(b, d)&pageWakes == 0 {
						b.Skip("who sleeps on the mapped page is not woken in this mode here, and the page says so")
					}
					benchFanout(b, d, program, how, n)
				})
			})
		}
	}
}

// pageBits is the second word of the mapped page.
func pageBits(b *testing.B, d *device) uint32 {
	b.Helper()
	fd := open(b, d.path, unix.O_RDONLY)
	page, err := unix.Mmap(fd, 0, PageSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		b.Fatal(err)
	}
	bits := binary.NativeEndian.Uint32(page[4:])
	if err := unix.Munmap(page); err != nil {
		b.Fatal(err)
	}
	return bits
}

func benchFanout(b *testing.B, d *device, program, how string, n int) {
	floor, confirm := gather(b, program, "floor", "-", n), gather(b, program, "confirm", "-", n)
	crowd := gather(b, program, how, d.path, n)
	var ours, floors, confirms costs
	number(b, d.ask("fan")) // one to warm up
	for b.Loop() {
		ours = append(ours, d.fanRound(b, crowd))
		floors = append(floors, floor.round(b))
		confirms = append(confirms, confirm.round(b))
	}
	b.ReportMetric(ours.wall(), "bump-ns")
	b.ReportMetric(ours.cpu(), "bump-cpu-ns")
	b.ReportMetric(ours.wall()/floors.wall(), "ratio")
	b.ReportMetric(ours.cpu()/floors.cpu(), "cpu-ratio")
	b.ReportMetric(ours.wall()/confirms.wall(), "confirm-ratio")
	b.ReportMetric(ours.cpu()/confirms.cpu(), "confirm-cpu-ratio")
	b.ReportMetric(0, "ns/op")
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

// BenchmarkC is what the calls cost a C client, and how long a poll takes to wake.
func BenchmarkC(b *testing.B) {
	program := compile(b, "bench", benchC)
	benchModes(b, func(b *testing.B, d *device) {
		all := map[string][]float64{}
		for b.Loop() {
			out, err := exec.Command(program, d.path, "500").CombinedOutput()
			if err != nil {
				b.Fatalf("%v\n%s", err, out)
			}
			for line := range strings.Lines(string(out)) {
				name, ns, _ := strings.Cut(strings.TrimSpace(line), " ")
				all[name] = append(all[name], number(b, ns))
			}
		}
		for name, list := range all {
			b.ReportMetric(median(list), name+"-ns")
		}
		b.ReportMetric(0, "ns/op")
	})
}

// BenchmarkPollWake is from just before a bump until a poll in another process has returned, read the mapped page
// and acknowledged.
func BenchmarkPollWake(b *testing.B) {
	program := compile(b, "fanout", fanoutC)
	benchModes(b, func(b *testing.B, d *device) {
		crowd := gather(b, program, "poll", d.path, 1)
		var list costs
		for b.Loop() {
			list = append(list, d.fanRound(b, crowd))
		}
		b.ReportMetric(list.wall(), "median-ns")
		b.ReportMetric(list.cpu(), "cpu-ns")
		b.ReportMetric(0, "ns/op")
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
