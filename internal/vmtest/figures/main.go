// Figures is a service that says when it began to run, by the clock of the kernel's log, and, asked for it by an argument, what
// PID 1 has cost by then.
package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) == 1 {
		time.Sleep(24 * time.Hour)
	}
	log, err := unix.Open("/dev/kmsg", unix.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _ = unix.Write(log, []byte("figures: runs\n"))
	began, runs := stamps(log)
	if os.Args[1] == "late" { // when the others are up
		time.Sleep(2 * time.Second)
	}
	fmt.Printf("start_us=%d pss_kib=%d rss_kib=%d threads=%s binary=%d\n", runs-began, rollup("Pss:"), rollup("Rss:"), threads(), size())
	time.Sleep(24 * time.Hour)
}

// stamps finds when the kernel handed over and when we wrote, in microseconds.
func stamps(log int) (began, runs int64) {
	buf := make([]byte, 8192)
	for {
		n, err := unix.Read(log, buf)
		if err == unix.EPIPE {
			continue
		}
		if err != nil {
			return began, runs
		}
		head, text, _ := strings.Cut(string(buf[:n]), ";")
		f := strings.Split(head, ",")
		at, _ := strconv.ParseInt(f[2], 10, 64)
		switch {
		case strings.HasPrefix(text, "Run /init as init process"):
			began = at
		case strings.HasPrefix(text, "figures: runs"):
			runs = at
		}
	}
}

func rollup(key string) int {
	data, _ := os.ReadFile("/proc/1/smaps_rollup")
	for _, line := range bytes.Split(data, []byte("\n")) {
		if f := strings.Fields(string(line)); len(f) > 1 && f[0] == key {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	return -1
}

func threads() string {
	entries, _ := os.ReadDir("/proc/1/task")
	return strconv.Itoa(len(entries))
}

func size() int64 {
	st, err := os.Stat("/init")
	if err != nil {
		return -1
	}
	return st.Size()
}
