package sysgenid

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"rouse/internal/leak"
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
	run := func() int {
		return leak.Check(func() int {
			defer runtime.GC() // a Client that is unreachable unmaps its pages, and mappings hold descriptions
			return m.Run()
		})
	}
	if wrapper != nil {
		os.Exit(wrapper(run))
	}
	os.Exit(run())
}
