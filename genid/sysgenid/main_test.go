package sysgenid

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// roles are what the test binary does when it is started again as a helper
// process; wrapper, if set, runs the tests in a place of their own.
var (
	roles   = map[string]func(args []string) error{}
	wrapper func(run func() int) int
)

const roleVariable = "SYSGENID_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		if err := roles[role](os.Args[1:]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	run := func() int { return withoutLeaks(m) }
	if wrapper != nil {
		os.Exit(wrapper(run))
	}
	os.Exit(run())
}

// withoutLeaks fails the run if goroutines or descriptors are left over.
func withoutLeaks(m *testing.M) int {
	if r, w, err := os.Pipe(); err == nil { // Go's poller opens its own two
		r.Close()
		w.Close()
	}
	before := descriptors()
	code := m.Run()
	if code != 0 {
		return code
	}
	for try := 0; ; try++ {
		runtime.GC() // files without an owner are closed by their cleanups
		leftFiles, leftRoutines := descriptors()-before, runtime.NumGoroutine()-2
		if leftFiles <= 0 && leftRoutines <= 0 {
			return 0
		}
		if try == 100 {
			fmt.Printf("left over: %d descriptors, %d goroutines\n", leftFiles, leftRoutines)
			buf := make([]byte, 1<<16)
			fmt.Printf("%s\n", buf[:runtime.Stack(buf, true)])
			return 1
		}
		time.Sleep(10 * time.Millisecond) // goroutines end after what they did is seen
	}
}

func descriptors() int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(list)
}
