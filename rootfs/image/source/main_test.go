package source

import (
	"testing"

	"rouse/internal/leak"
)

// TestMain fails the run if it leaves descriptors or goroutines behind.
func TestMain(m *testing.M) { leak.Main(m) }
