//go:build linux && vmfault

package main

import (
	"os"
	"time"

	"rouse/internal/guard"
)

// An init of build tag vmfault panics when it is asked to, in a goroutine that is guarded as all others are.
func init() {
	if os.Getpid() != 1 {
		return
	}
	go guard.Do(panicOnDemand)
}

func panicOnDemand() {
	const wish = "/run/rouse/panic"
	defer func() { go guard.Do(panicOnDemand) }() // for the next time
	for {
		time.Sleep(20 * time.Millisecond)
		if os.Remove(wish) == nil {
			panic("asked for")
		}
	}
}
