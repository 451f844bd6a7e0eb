package genid

import (
	"os"
	"testing"

	"rouse/internal/leak"
)

// atExit undoes what tests of other build tags share.
var atExit = func() {}

// TestMain fails if tests leave descriptors or goroutines behind.
func TestMain(m *testing.M) {
	os.Exit(leak.Check(func() int {
		defer atExit()
		return m.Run()
	}))
}
