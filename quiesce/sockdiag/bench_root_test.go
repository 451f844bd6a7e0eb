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
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// crowd opens n TCP sockets, half of them connected to the other half, all idle, in helper processes: one process may
// not be allowed that many descriptors.
func crowd(tb testing.TB, n int) {
	tb.Helper()
	const each = 16000
	for host := 0; n > 0; host++ {
		helper(tb, "connect", "127.0.1."+strconv.Itoa(host), strconv.Itoa(min(n, each)/2))
		n -= each
	}
}

// helper starts this test binary as another process in the thread's namespaces, and returns once it has said that it
// is ready. It ends when the test does.
func helper(tb testing.TB, args ...string) *exec.Cmd {
	tb.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
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
	if err := errors.Join(unix.Bind(l, at), unix.Listen(l, 128)); err != nil {
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
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		b.Skipf("ip: %v: %s", err, out)
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
