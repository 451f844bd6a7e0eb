//go:build root

package sockdiag

import (
	"context"
	"testing"
)

// TestLookAllocates keeps budgets for looks at a namespace without a socket: a guest that has just been resumed has cold
// memory, and a collection while the gate is shut is time that its clients wait.
func TestLookAllocates(t *testing.T) {
	enterNetns(t)
	ins := inspect(t, Options{})
	// A kernel that does not count its MPTCP sockets (before Linux 6.2) is asked for them at each look: on every kernel here.
	for i := range ins.spaces[0].sources {
		if s := &ins.spaces[0].sources[i]; s.proto == protoMPTCP {
			s.counted = false
		}
	}
	for name, look := range map[string]func() ([]Socket, error){
		"idle look": func() ([]Socket, error) { return ins.Busy(context.Background()) },
		"inherited": func() ([]Socket, error) { return ins.Inherited(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			n := testing.AllocsPerRun(20, func() {
				if found, err := look(); err != nil || len(found) != 0 {
					t.Fatalf("not idle: %v\n%s", err, list(found))
				}
			})
			if n > lookBudget {
				t.Errorf("%v allocations, budget %d", n, lookBudget)
			}
		})
	}
}

// 2026-11: 1 was measured on Linux 6.1, 6.12 and 6.18, for what a look remembers while it lasts.
const lookBudget = 2
