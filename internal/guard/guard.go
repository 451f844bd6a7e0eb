// Package guard keeps a panic in one goroutine from ending PID 1, and with it the kernel.
//
// A panic that nobody recovers ends the process, wherever it happens; if that is PID 1, the kernel panics and the reason
// is lost. So every goroutine of a package that /init contains is started as
//
//	go guard.Do(func() { ... })
//
// and the program says once, before the first, what is to become of a panic. In a program that does not say so a panic
// is what it always is.
package guard

import "runtime/debug"

// OnPanic is called with what was recovered and the stack, in the goroutine that panicked, which then ends. It is set
// before any goroutine is started and never again.
var OnPanic func(reason any, stack []byte)

// Do calls f and hands a panic of it to OnPanic.
func Do(f func()) {
	defer func() {
		if OnPanic == nil {
			return // the panic goes on
		}
		if p := recover(); p != nil {
			OnPanic(p, debug.Stack())
		}
	}()
	f()
}
