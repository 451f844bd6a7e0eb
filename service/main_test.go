package service

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// The test binary is its own service: with this variable set it acts as the named helper.
const helperKey = "ROUSE_SERVICE_HELPER"

var helpers = map[string]func(args []string){}

// testReaper is the one reaper of this process; it reaps everything, so that no test may use
// exec.Cmd.Wait.
var testReaper = NewReaper()

func TestMain(m *testing.M) {
	RunShim()
	if name := os.Getenv(helperKey); name != "" {
		helpers[name](os.Args[1:])
		os.Exit(0)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- testReaper.Run(ctx) }()
	before := openFDs()
	code := m.Run()
	if code == 0 {
		code = leaks(before)
	}
	cancel()
	<-done
	os.Exit(code)
}

// leaks checks that tests closed what they opened. Ends of goroutines are awaited, not assumed.
func leaks(before int) int {
	deadline := time.Now().Add(time.Minute)
	for {
		// The runtime's poller opens up to three of its own when first used.
		fds, routines := openFDs(), runtime.NumGoroutine()
		if fds <= before+3 && routines <= 6 {
			return 0
		}
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			fmt.Printf("leak: %d descriptors (before: %d), %d goroutines\n%s\n", fds, before, routines, buf[:runtime.Stack(buf, true)])
			return 1
		}
		runtime.Gosched()
	}
}

func openFDs() int {
	entries, _ := os.ReadDir("/proc/self/fd")
	return len(entries)
}

// helper returns a command that runs the named helper.
func helper(name string, args ...string) *Command {
	return &Command{
		Path: "/proc/self/exe", Args: append([]string{"helper"}, args...),
		Env: []string{helperKey + "=" + name},
	}
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}
