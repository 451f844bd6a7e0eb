package main

import (
	"rouse/firewall"
	"rouse/internal/fmt"
)

// panicked is what becomes of a panic in any goroutine but the first, whose end is the machine's: nobody knows what is still
// right, so the gate is shut until the host decides. The goroutine's work is not done any more.
func (g *guest) panicked(reason any, stack []byte) {
	message := fmt.Sprintf("panic: %v", reason)
	g.problem("%s", message)
	g.log.warn("%s", stack)
	if g.flow != nil {
		g.flow.Fail(message)
	}
	// At once, whatever the flow is at. Last, for what panicked may have left the gate locked.
	if g.gate != nil {
		if err := g.gate.Set(firewall.Shut); err != nil {
			g.problem("%s: the gate may be open: %v", message, err)
		}
	}
}
