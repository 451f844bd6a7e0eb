package genid

import (
	"fmt"
	"os"
	"testing"
)

// atExit undoes what tests of other build tags share.
var atExit = func() {}

// TestMain fails if tests leave descriptors open.
func TestMain(m *testing.M) {
	before := descriptors()
	code := m.Run()
	atExit()
	if after := descriptors(); code == 0 && after > before {
		fmt.Printf("%d descriptors open before the tests, %d after\n", before, after)
		code = 1
	}
	os.Exit(code)
}

func descriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	n := 0
	for _, e := range entries {
		// The runtime's poller opens its own when it is first needed.
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to != "anon_inode:[eventpoll]" && to != "anon_inode:[eventfd]" {
			n++
		}
	}
	return n
}
