//go:build root

package sockdiag

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// crowd opens n TCP sockets, half of them connected to the other half, all idle, in helper processes: one process may
// not be allowed that many descriptors.
func crowd(tb testing.TB, n int) {
	tb.Helper()
	crowdAt(tb, 0, n)
}

// crowdAt uses addresses from 127.0.1.host on.
func crowdAt(tb testing.TB, host, n int) {
	tb.Helper()
	const each = 16000
	for ; n > 0; host++ {
		helper(tb, "connect", "127.0.1."+strconv.Itoa(host), strconv.Itoa(min(n, each)/2))
		n -= each
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

// helper starts this test binary as another process in the thread's namespaces, and returns once it has said that it
// is ready. It ends when the test does.
func helper(tb testing.TB, args ...string) *exec.Cmd {
	tb.Helper()
	return helperIn(tb, 0, args...)
}

// helperIn starts it in new namespaces.
func helperIn(tb testing.TB, flags uintptr, args ...string) *exec.Cmd {
	tb.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	cmd.Env = append(os.Environ(), "SOCKDIAG_HELPER=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil {
		tb.Fatalf("helper %v: %v", args, err)
	}
	return cmd
}

// TestMain is also the helpers' main.
func TestMain(m *testing.M) {
	if os.Getenv("SOCKDIAG_HELPER") == "" {
		os.Exit(m.Run())
	}
	if err := help(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "helper:", err)
		os.Exit(1)
	}
	os.Stdout.Write([]byte("r"))
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
}

func help(args []string) error {
	switch args[0] {
	case "connect":
		n, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return connect(netip.MustParseAddr(args[1]).As4(), n)
	case "unread":
		return unread()
	case "udp":
		return connectUDP()
	case "fifo":
		return openFIFO(args[1])
	case "serve":
		return serveUnix(args[1])
	}
	return fmt.Errorf("no helper %q", args[0])
}

// connect makes n connections from and to one address. They are reset when the process ends: no TIME_WAIT stays.
func connect(addr [4]byte, n int) error {
	at := &unix.SockaddrInet4{Addr: addr, Port: 7000}
	l, err := resetting()
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Bind(l, at), unix.Listen(l, 2048)); err != nil {
		return err
	}
	for range n {
		c, err := resetting()
		if err != nil {
			return err
		}
		if err := unix.Connect(c, at); err != nil {
			return err
		}
		if _, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC); err != nil {
			return err
		}
	}
	return nil
}

// resetting is a socket whose close sends RST; accepted ones inherit that.
func resetting() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return fd, unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// cpu is the processor time used so far, by this thread or by the children waited for.
func cpu(tb testing.TB, who int) time.Duration {
	tb.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(who, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchNetns(b *testing.B, o Options) *Inspector {
	b.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		b.Skipf("cannot make a network namespace: %v", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		b.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		b.Fatal(err)
	}
	ins, err := New(o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ins.Close() })
	return ins
}

// BenchmarkBusy is one look at idle sockets; cpu-ns/op is processor time, ss-cpu-ns that of `ss -tanH` for the same sockets.
func BenchmarkBusy(b *testing.B) {
	for _, n := range []int{0, 1000, 10000, 100000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ins := benchNetns(b, Options{})
			crowd(b, n)
			b.ReportAllocs()
			before := cpu(b, unix.RUSAGE_THREAD)
			for b.Loop() {
				if left, err := ins.Busy(context.Background()); err != nil || len(left) != 0 {
					b.Fatal(left, err)
				}
			}
			b.ReportMetric(float64(cpu(b, unix.RUSAGE_THREAD)-before)/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(ssDump(b, n)), "ss-cpu-ns")
		})
	}
}

// BenchmarkActive is one look at 1000 connections that all hold unread bytes, among 10 000 that hold none.
func BenchmarkActive(b *testing.B) {
	ins := benchNetns(b, Options{ExcludePIDs: []int{}})
	crowd(b, 10000)
	for range 1000 {
		c, err := resetting()
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { unix.Close(c) })
		if err := unix.Connect(c, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 1, 0}, Port: 7000}); err != nil {
			b.Fatal(err)
		}
		if _, err := unix.Write(c, []byte("x")); err != nil {
			b.Fatal(err)
		}
	}
	look := func(b *testing.B, f func() ([]Socket, error)) {
		b.ReportAllocs()
		for b.Loop() {
			if left, err := f(); err != nil || len(left) < 1000 {
				b.Fatal(len(left), err)
			}
		}
	}
	b.Run("wait", func(b *testing.B) {
		look(b, func() ([]Socket, error) { return ins.look(context.Background(), false) })
	})
	b.Run("busy", func(b *testing.B) { look(b, func() ([]Socket, error) { return ins.Busy(context.Background()) }) })
}

// ssDump is the processor time of one ss, fork and exec included: that is how it is used.
func ssDump(b *testing.B, n int) time.Duration {
	b.Helper()
	var out bytes.Buffer
	const rounds = 3
	var used time.Duration
	for range rounds {
		out.Reset()
		cmd := exec.Command("ss", "-tanH")
		cmd.Stdout = &out
		if err := cmd.Run(); err != nil {
			b.Skipf("ss: %v", err)
		}
		used += cmd.ProcessState.SystemTime() + cmd.ProcessState.UserTime()
	}
	if lines := bytes.Count(out.Bytes(), []byte("\n")); lines < n {
		b.Fatalf("ss shows %d of %d sockets", lines, n)
	}
	return used / rounds
}

// BenchmarkDestroy ends 10 000 connections, each seen at its server's end; ss-ns is what `ss -K` needs for as many.
func BenchmarkDestroy(b *testing.B) {
	const n = 10000
	ins := benchNetns(b, Options{})
	var ours, theirs, theirCPU time.Duration
	before, host := time.Duration(0), 0
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		crowdAt(b, host, 2*n)
		sockets := serverEnds(b, ins)
		before = cpu(b, unix.RUSAGE_THREAD)
		b.StartTimer()
		left, err := ins.Destroy(context.Background(), sockets)
		b.StopTimer()
		ours += cpu(b, unix.RUSAGE_THREAD) - before
		if err != nil || len(left) != 0 || len(sockets) < n {
			b.Fatalf("%d of %d left: %v", len(left), len(sockets), err)
		}
		crowdAt(b, host+2, 2*n)
		host += 4
		begin := time.Now()
		cmd := exec.Command("ss", "-K", "-tnH", "state", "established", "sport = :7000")
		if err := cmd.Run(); err != nil {
			b.Skipf("ss -K: %v", err)
		}
		theirs += time.Since(begin)
		theirCPU += cmd.ProcessState.SystemTime() + cmd.ProcessState.UserTime()
		if left := serverEnds(b, ins); len(left) != 0 {
			b.Fatalf("ss -K left %d", len(left))
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(ours)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(theirs)/float64(b.N), "ss-ns")
	b.ReportMetric(float64(theirCPU)/float64(b.N), "ss-cpu-ns")
}

func serverEnds(b *testing.B, ins *Inspector) []Socket {
	b.Helper()
	l := look{ins: ins, ctx: context.Background()}
	s := &ins.spaces[0].sources[2]
	err := l.rows(ins.spaces[0], s, afInet, 1<<tcpEstablished, nil, func(r *inetRow) {
		if r.id.local(afInet).Port() == 7000 {
			l.addInet(ins.spaces[0], s, r, verdict{})
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	return l.found
}

// BenchmarkWait is a drain of a machine on which nothing is to be drained: two looks.
func BenchmarkWait(b *testing.B) {
	for _, n := range []int{0, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ins := benchNetns(b, Options{})
			crowd(b, n)
			b.ReportAllocs()
			for b.Loop() {
				if left, err := ins.Wait(context.Background(), WaitOptions{}); err != nil || len(left) != 0 {
					b.Fatal(left, err)
				}
			}
		})
	}
}

func BenchmarkBarrier(b *testing.B) {
	for name, o := range map[string]Options{"plain": {}, "expedited": {Expedite: true}} {
		b.Run(name, func(b *testing.B) {
			if o.Expedite && os.Getpid() != 1 && os.Getenv("SOCKDIAG_OWN_MACHINE") == "" {
				b.Skip("changes a setting of the machine: only where SOCKDIAG_OWN_MACHINE says that it is the test's own")
			}
			ins := benchNetns(b, o)
			for b.Loop() {
				if err := ins.Barrier(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkWithout is a look without any diag module, at TCP and unix sockets.
func BenchmarkWithout(b *testing.B) {
	for _, n := range []int{0, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ins := benchNetns(b, Options{Withhold: []string{"all"}})
			crowd(b, n)
			b.ReportAllocs()
			for b.Loop() {
				if left, err := ins.Busy(context.Background()); err != nil || len(left) != 0 {
					b.Fatal(left, err)
				}
			}
		})
	}
}
