//go:build root

package firewall

import (
	"testing"
)

func TestCgroupQuick(t *testing.T) {
	root, err := cgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	if err := tryCgroup(root, nil); err != nil {
		t.Fatal(err)
	}
}
