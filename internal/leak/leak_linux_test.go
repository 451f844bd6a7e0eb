package leak

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// leaks says, to a child of the test, what to leave behind.
const leaks = "LEAK_TEST"

func TestMain(m *testing.M) {
	if left := os.Getenv(leaks); left != "" && left != "nothing" {
		patience = 100 * time.Millisecond // it is waited for in vain
	}
	Main(m)
}

// kept holds what a child leaks, so that no collection closes it.
var kept *os.File

func leakDescriptor(t testing.TB) (stop func()) {
	t.Helper()
	f, err := os.Open(".")
	if err != nil {
		t.Fatal(err)
	}
	kept = f
	return func() { kept.Close() }
}

func leakGoroutine(testing.TB) (stop func()) {
	forever := make(chan struct{})
	begun := make(chan struct{})
	go stayBehind(begun, forever)
	<-begun
	return func() { close(forever) }
}

func stayBehind(begun, forever chan struct{}) {
	close(begun)
	<-forever
}

func TestCheck(t *testing.T) {
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		leak func(testing.TB) func()
		want string
	}{
		"nothing":    {func(testing.TB) func() { return func() {} }, ""},
		"descriptor": {leakDescriptor, here},
		"goroutine":  {leakGoroutine, "leak.stayBehind"},
		"an event descriptor, like the poller's": {func(t testing.TB) func() {
			fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
			if err != nil {
				t.Fatal(err)
			}
			return func() { unix.Close(fd) }
		}, "anon_inode"},
		"one ended, one left": {func(t testing.TB) func() { // a count would not tell
			leakDescriptor(t)()
			leakGoroutine(t)()
			return leakGoroutine(t)
		}, "leak.stayBehind"},
	} {
		t.Run(name, func(t *testing.T) {
			var said strings.Builder
			var stop func()
			patience := 20 * time.Millisecond
			if tt.want == "" {
				patience = time.Minute
			}
			code := check(&said, patience, func() int { stop = tt.leak(t); return 0 })
			stop()
			if (code == 1) != (tt.want != "") || !strings.Contains(said.String(), tt.want) || tt.want == "" && said.Len() > 0 {
				t.Errorf("status %d, want %q in:\n%s", code, tt.want, said.String())
			}
		})
	}
}

func TestCheckKeepsAFailure(t *testing.T) {
	var said strings.Builder
	var stop func()
	if code := check(&said, 0, func() int { stop = leakDescriptor(t); return 7 }); code != 7 || said.Len() > 0 {
		t.Errorf("status %d, said %q", code, said.String())
	}
	stop()
}

// Package os/signal keeps its goroutine, which is nobody's leak.
func TestCheckKnowsSignals(t *testing.T) {
	var said strings.Builder
	code := check(&said, time.Minute, func() int {
		c := make(chan os.Signal, 1)
		signal.Notify(c, unix.SIGWINCH)
		signal.Stop(c)
		return 0
	})
	if code != 0 {
		t.Errorf("status %d:\n%s", code, said.String())
	}
}

// A goroutine that ends soon after the run is none left behind.
func TestCheckWaits(t *testing.T) {
	var said strings.Builder
	code := check(&said, time.Minute, func() int {
		go func() {
			for range 10000 {
				runtime.Gosched()
			}
		}()
		return 0
	})
	if code != 0 {
		t.Errorf("status %d:\n%s", code, said.String())
	}
}

// TestLeaky does in a child what it is told to.
func TestLeaky(t *testing.T) {
	switch os.Getenv(leaks) {
	case "descriptor":
		leakDescriptor(t)
	case "goroutine":
		leakGoroutine(t)
	}
}

// The whole way: a test binary whose TestMain is Main, and a test in it that leaks.
func TestMainCatches(t *testing.T) {
	for what, want := range map[string]int{"nothing": 0, "descriptor": 1, "goroutine": 1} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestLeaky$")
		cmd.Env = append(os.Environ(), leaks+"="+what)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if got := cmd.ProcessState.ExitCode(); got != want || want == 1 && !strings.Contains(string(out), what+"s left behind: 1") {
			t.Errorf("%s: status %d, want %d:\n%s", what, got, want, out)
		}
	}
}
