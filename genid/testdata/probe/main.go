// Command probe runs in the guests of the VM tests. What it does is its own name: draw, watch or idle.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rouse/genid"
)

func main() {
	switch mode := filepath.Base(os.Args[0]); mode {
	case "draw":
		draw()
	case "watch":
		watch()
	case "idle":
		idle()
	default:
		fmt.Fprintf(os.Stderr, "probe: %s: unknown mode\n", mode)
		os.Exit(2)
	}
}

// draw prints numbered random bytes, straight from the system call, for ever.
func draw() {
	entries, _ := filepath.Glob("/sys/bus/*/drivers/vmgenid")
	fmt.Printf("driver %d\n", len(entries))
	var random [32]byte
	for n := 0; ; n++ {
		if _, err := unix.Getrandom(random[:], 0); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("draw %d %x\n", n, random)
		time.Sleep(20 * time.Millisecond)
	}
}

// watch looks at the identity as rouse does while quiesced, and prints what changes when.
func watch() {
	s := genid.OpenSources(withLog())
	fmt.Printf("watch %v %q\n", s.Names(), s.ID())
	last, same, changed := s.ID(), time.Now(), time.Time{}
	began, looks := same, 0
	for tick := time.NewTicker(time.Millisecond); ; {
		select {
		case <-tick.C:
		case <-s.Events():
			fmt.Printf("event %d\n", time.Since(changed).Microseconds())
		}
		id, now := s.ID(), time.Now()
		if id != last {
			fmt.Printf("change %d %s, mean %d\n", now.Sub(same).Microseconds(), id, same.Sub(began).Microseconds()/int64(max(looks, 1)))
			last, changed, looks = id, now, 0
		}
		if looks++; looks == 2000 && !changed.IsZero() {
			fmt.Println("settled")
		}
		same = now
	}
}

func withLog() genid.Options {
	o := genid.MachineOptions()
	o.Log = func(format string, args ...any) { fmt.Printf("log "+format+"\n", args...) }
	return o
}

// idle prints what PID 1 has cost while nothing happened, over 4 seconds.
func idle() {
	fmt.Println("begun")
	time.Sleep(5 * time.Second) // the boot's last work
	// The least of three: where the host takes a processor away meanwhile, Go's monitor naps and wakes until it is back.
	var took time.Duration
	var least cost
	for n := range 3 {
		began, before := time.Now(), spent()
		time.Sleep(4 * time.Second)
		if c := spent().since(before); n == 0 || c.switches < least.switches {
			took, least = time.Since(began), c
		}
	}
	fmt.Printf("idle seconds=%.3f cpu-us=%d switches=%d ticks=%d threads=%d\n", took.Seconds(),
		least.runNS/1000, least.switches, least.ticks, least.threads)
}

// cost is the sum over the threads of PID 1.
type cost struct {
	runNS    uint64 // time on a CPU
	switches uint64 // context switches, voluntary or not
	threads  int
	ticks    uint64 // utime and stime of /proc/1/stat
}

func (c cost) since(before cost) cost {
	return cost{c.runNS - before.runNS, c.switches - before.switches, c.threads, c.ticks - before.ticks}
}

func spent() cost {
	var c cost
	tasks, _ := filepath.Glob("/proc/1/task/*")
	c.threads = len(tasks)
	for _, t := range tasks {
		schedstat, _ := os.ReadFile(t + "/schedstat")
		c.runNS += number(field(schedstat, 0))
		status, _ := os.ReadFile(t + "/status")
		for line := range bytes.Lines(status) {
			if bytes.Contains(line, []byte("ctxt_switches")) {
				c.switches += number(field(line, 1))
			}
		}
	}
	stat, _ := os.ReadFile("/proc/1/stat")
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	c.ticks = number(field(rest, 11)) + number(field(rest, 12)) // proc(5): fields 14 and 15
	return c
}

func field(line []byte, n int) string {
	if words := strings.Fields(string(line)); n < len(words) {
		return words[n]
	}
	return ""
}

func number(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}
