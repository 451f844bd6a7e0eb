// Package leak fails a test run that leaves descriptors or goroutines behind. A package's TestMain calls Main,
// or Check where it has more to do.
//
// What was there before the run is no leak. The rest is compared one by one and not counted, so that what
// ended meanwhile cannot hide what was left.
package leak

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// Main runs the tests and exits with their status, or 1 if they leave something behind.
func Main(m *testing.M) { os.Exit(Check(m.Run)) }

// Check is run's status, or 1 if that is 0 and something is left behind, which is then printed.
func Check(run func() int) int { return check(os.Stdout, patience, run) }

// patience is waited in vain only where something is left behind, so it is long enough for a machine that is busy with other tests.
var patience = 30 * time.Second

// check gives goroutines that have been told to end patience to do so: there is no event for it.
func check(w io.Writer, patience time.Duration, run func() int) int {
	// Go's poller opens two descriptors when it is first needed. Leaving out all of their kind would hide ours.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	files, routines := descriptors(), goroutines()
	code := run()
	if code != 0 {
		return code
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		left, open := goroutines(), descriptors()
		for key := range routines { // wherever they are now
			delete(left, key)
		}
		for key, to := range files {
			if open[key] == to {
				delete(open, key)
			}
		}
		if len(left) == 0 && len(open) == 0 {
			return 0
		}
		if time.Now().After(deadline) {
			report(w, "descriptors", open)
			report(w, "goroutines", left)
			return 1
		}
	}
}

func report(w io.Writer, what string, list map[string]string) {
	if len(list) == 0 {
		return
	}
	var lines []string
	for key, text := range list {
		lines = append(lines, key+": "+text)
	}
	slices.Sort(lines)
	fmt.Fprintf(w, "%s left behind: %d\n%s\n", what, len(list), strings.Join(lines, "\n"))
}

// descriptors are what is open: numbers, and what they lead to. Without /proc there are none to compare.
func descriptors() map[string]string {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	open := map[string]string{}
	for _, e := range list {
		// The folder itself, as it was read, is closed by now.
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			open[e.Name()] = to
		}
	}
	return open
}

// goroutines are the stacks of all but the caller's by their numbers, which are not used twice.
func goroutines() map[string]string {
	text := make([]byte, 1<<16)
	for {
		if n := runtime.Stack(text, true); n < len(text) {
			text = text[:n]
			break
		}
		text = make([]byte, 2*len(text))
	}
	all := map[string]string{}
	for i, stack := range bytes.Split(text, []byte("\n\n")) {
		// goroutine 7 [chan receive]:
		head, _, _ := bytes.Cut(stack, []byte(" ["))
		// That of package os/signal never ends once somebody asked for a signal, as the fuzzer does.
		if i > 0 && !bytes.Contains(stack, []byte("\nos/signal.loop()")) {
			all[string(head)] = string(stack)
		}
	}
	return all
}
