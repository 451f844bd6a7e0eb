//go:build root

package firewall

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestMain checks that no test leaves descriptors, or cgroups in the machine's
// tree.
func TestMain(m *testing.M) {
	if os.Getenv("GATE_CLIENT") != "" {
		if err := client(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	before := descriptors()
	code := m.Run()
	if after := descriptors(); code == 0 && after > before+allowedDescriptors {
		fmt.Printf("%d descriptors before the tests, %d after\n", before, after)
		code = 1
	}
	if root, err := cgroupRoot(); err == nil {
		if left, _ := filepath.Glob(root + "/rouse-probe-*"); len(left) > 0 {
			fmt.Println("cgroups left:", left)
			code = 1
		}
	}
	os.Exit(code)
}

// allowedDescriptors are the runtime's own, of its poller.
const allowedDescriptors = 4

// descriptors counts what is open once threads that are ending have ended.
func descriptors() int {
	n := 0
	for range 50 {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return 0
		}
		if n == len(entries) {
			break
		}
		n = len(entries)
		time.Sleep(2 * time.Millisecond)
	}
	return n
}
