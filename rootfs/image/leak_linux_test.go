package image

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain fails the run if it leaves descriptors or goroutines behind.
func TestMain(m *testing.M) {
	before := descriptors()
	routines := runtime.NumGoroutine()
	code := m.Run()
	if code == 0 {
		code = leaks(before, routines)
	}
	os.Exit(code)
}

func leaks(before []string, routines int) int {
	var more []string
	for _, d := range descriptors() {
		if !slices.Contains(before, d) {
			more = append(more, d)
		}
	}
	// A goroutine that has been told to end may take a moment to do so.
	for range 100 {
		if runtime.NumGoroutine() <= routines {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > routines || len(more) > 0 {
		stacks := make([]byte, 1<<16)
		fmt.Printf("left behind: descriptors %q, %d goroutines, were %d\n%s\n", more, n, routines, stacks[:runtime.Stack(stacks, true)])
		return 1
	}
	return 0
}

// descriptors lists what is open but for the Go runtime's own poller.
func descriptors() []string {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range list {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(to, "anon_inode:[event") && !strings.HasPrefix(to, "/proc/") {
			out = append(out, e.Name()+" "+to)
		}
	}
	return out
}
