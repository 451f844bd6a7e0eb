// Command chaos misbehaves inside of a guest, for the fault tests.
//
//	chaos agent     takes words from the host at port 7000, outside of the services' cgroups: it is never frozen
//	chaos watch     tracks the generation and answers as /run/chaos/mode says
//	chaos crowd N   N tracked watchers that answer at once
//	chaos pairs N   N TCP connections to itself
//	chaos sleep     does nothing
//	chaos eat       eats memory at SIGUSR1, forks at SIGUSR2, as much as it is let
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rouse/genid/sysgenid"
)

const runDir = "/run/chaos"

func main() {
	n := 0
	if len(os.Args) > 2 {
		n, _ = strconv.Atoi(os.Args[2])
	}
	must(os.MkdirAll(runDir, 0o755))
	must(map[string]func(int) error{"agent": agent, "watch": watch, "crowd": crowd, "pairs": pairs, "sleep": sleep, "eat": eat}[os.Args[1]](n))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func sleep(int) error { time.Sleep(1 << 62); return nil }

// agent leaves its service's cgroup for one beside the hooks', which is not frozen.
func agent(int) error {
	const cgroup = "/sys/fs/cgroup/hooks/agent"
	must(os.MkdirAll(cgroup, 0o755))
	must(os.WriteFile(cgroup+"/cgroup.procs", []byte("0"), 0))
	l, err := net.Listen("tcp", ":7000")
	must(err)
	for {
		c, err := l.Accept()
		must(err)
		go func() {
			defer c.Close()
			line, err := bufio.NewReader(c).ReadString('\n')
			if err != nil {
				return
			}
			out, err := obey(strings.Fields(line))
			if err != nil {
				out = "error: " + err.Error()
			}
			fmt.Fprintln(c, out)
		}()
	}
}

// later counts what was told with "at" and is not done.
var later sync.WaitGroup

// obey does one thing, or, with "at MS", later; "wait" waits for all that.
func obey(words []string) (string, error) {
	if words[0] == "at" {
		ms, err := strconv.Atoi(words[1])
		must(err)
		later.Add(1)
		time.AfterFunc(time.Duration(ms)*time.Millisecond, func() {
			defer later.Done()
			if _, err := obey(words[2:]); err != nil {
				fmt.Fprintln(os.Stderr, words, err)
			}
		})
		return "ok", nil
	}
	if words[0] == "wait" {
		later.Wait()
		return "ok", nil
	}
	f := map[string]func([]string) (string, error){"kill": kill, "mode": mode, "fill": fill, "unfill": unfill, "limit": limit,
		"garbage": garbage, "say": say, "clock": clock, "panic": panicNow, "stat": stat, "thaw": thawSelf, "forceopen": forceOpen}[words[0]]
	if f == nil {
		return "", fmt.Errorf("unknown word %q", words[0])
	}
	return f(words[1:])
}

// kill sends a signal to all processes of a service.
func kill(words []string) (string, error) {
	text, err := os.ReadFile("/sys/fs/cgroup/services/" + words[0] + "/cgroup.procs")
	if err != nil {
		return "", err
	}
	for _, p := range strings.Fields(string(text)) {
		pid, _ := strconv.Atoi(p)
		_ = unix.Kill(pid, unix.SignalNum(words[1]))
	}
	return string(text), nil
}

func mode(words []string) (string, error) {
	return "ok", os.WriteFile(runDir+"/mode", []byte(words[0]), 0o644)
}

// fill writes until the disk is full; unfill undoes it.
func fill(words []string) (string, error) {
	f, err := os.Create(words[0] + "/chaos.fill")
	if err != nil {
		return "", err
	}
	defer f.Close()
	// Not by writing: memory of the guest's size would be gone with it.
	var st unix.Statfs_t
	must(unix.Fstatfs(int(f.Fd()), &st))
	err = unix.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Bsize)
	return fmt.Sprint(err), nil
}

func unfill(words []string) (string, error) {
	return "ok", os.Remove(words[0] + "/chaos.fill")
}

// limit lets PID 1 have so many descriptors more than it has; "0" takes the limit back.
func limit(words []string) (string, error) {
	more, _ := strconv.Atoi(words[0])
	open, err := os.ReadDir("/proc/1/fd")
	if err != nil {
		return "", err
	}
	// The lowest free number counts, not how many there are.
	highest := 0
	for _, e := range open {
		n, _ := strconv.Atoi(e.Name())
		highest = max(highest, n)
	}
	l := unix.Rlimit{Cur: uint64(highest + more), Max: 1 << 20}
	if more == 0 {
		l.Cur = 1024
	}
	return fmt.Sprint(highest), unix.Prlimit(1, unix.RLIMIT_NOFILE, &l, nil)
}

const controlSocket = "/run/rouse/control.sock"

// garbage says nonsense at the control socket, half a line, too much, and goes.
func garbage([]string) (string, error) {
	for _, text := range []string{"\xff{{{\n", `{"execute":`, strings.Repeat("x", 3<<20) + "\n", `{"execute":"rouse-quiesce","arguments":{"timeout-ms":-1}}` + "\n", "[]\n\x00\n"} {
		c, err := net.Dial("unix", controlSocket)
		if err != nil {
			return "", err
		}
		_ = c.SetDeadline(time.Now().Add(time.Second))
		_, _ = c.Write([]byte(text))
		_, _ = c.Read(make([]byte, 100))
		c.Close()
	}
	return "ok", nil
}

// say executes a command at the control socket and returns the answer.
func say(words []string) (string, error) {
	c, err := net.Dial("unix", controlSocket)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	text, _ := json.Marshal(map[string]any{"execute": words[0]})
	if _, err := c.Write(append(text, '\n')); err != nil {
		return "", err
	}
	return bufio.NewReaderSize(c, 1<<20).ReadString('\n')
}

// clock moves the wall clock by seconds.
func clock(words []string) (string, error) {
	n, _ := strconv.ParseInt(words[0], 10, 64)
	var now unix.Timespec
	must(unix.ClockGettime(unix.CLOCK_REALTIME, &now))
	now.Sec += n
	return "ok", unix.ClockSettime(unix.CLOCK_REALTIME, &now)
}

// panicNow asks an init of build tag vmfault for a panic.
func panicNow([]string) (string, error) {
	return "ok", os.WriteFile("/run/rouse/panic", nil, 0o600)
}

// forceOpen opens the gate behind rouse's back.
func forceOpen([]string) (string, error) {
	text, err := exec.Command("/sbin/rousectl", "gate", "open", "--force").CombinedOutput()
	return string(text), err
}

// thawSelf writes what only rouse should.
func thawSelf([]string) (string, error) {
	return "ok", os.WriteFile("/sys/fs/cgroup/services/cgroup.freeze", []byte("0"), 0)
}

// stat is what the host checks after each fault.
func stat([]string) (string, error) {
	frozen, err := os.ReadFile("/sys/fs/cgroup/services/cgroup.events")
	if err != nil {
		return "", err
	}
	fds, err := os.ReadDir("/proc/1/fd")
	if err != nil {
		return "", err
	}
	status, err := os.ReadFile("/proc/1/status")
	if err != nil {
		return "", err
	}
	field := func(name string) int {
		_, rest, _ := strings.Cut(string(status), name+":")
		n, _ := strconv.Atoi(strings.Fields(rest)[0])
		return n
	}
	text, err := json.Marshal(map[string]any{"frozen": strings.Contains(string(frozen), "frozen 1"), "fds": len(fds),
		"rss-kib": field("VmRSS"), "threads": field("Threads"), "clock": time.Now().Unix()})
	return string(text), err
}

func open() *sysgenid.Client {
	c, err := sysgenid.Open(sysgenid.Path)
	must(err)
	must(c.Track(true))
	return c
}

func watch(int) error {
	c := open()
	for {
		gen, err := c.Wait(context.Background())
		if err != nil {
			return err
		}
		switch readMode() {
		case "wrong":
			_ = c.Ack(gen + 5)
			_ = c.Ack(gen - 1)
		case "twice":
			_ = c.Ack(gen)
		case "flood":
			for range 2000 {
				_ = c.Ack(gen - 1)
				c.Generation()
			}
		case "close":
			must(c.Close())
			c = open()
			continue
		case "exit":
			os.Exit(3)
		case "fork":
			for range 20 {
				p, err := os.StartProcess("/proc/self/exe", []string{"chaos", "sleep"}, &os.ProcAttr{})
				if err == nil {
					time.AfterFunc(time.Second, func() { _ = p.Kill(); _, _ = p.Wait() })
				}
			}
		case "never":
			for readMode() == "never" {
				time.Sleep(20 * time.Millisecond)
			}
		}
		_ = c.Ack(gen) // refused if there is another by now
	}
}

func readMode() string {
	text, _ := os.ReadFile(runDir + "/mode")
	return string(text)
}

func crowd(n int) error {
	must(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 16, Max: 1 << 16}))
	var ready sync.WaitGroup
	for range n {
		ready.Add(1)
		go func() {
			c := open()
			ready.Done()
			for {
				gen, err := c.Wait(context.Background())
				must(err)
				_ = c.Ack(gen)
			}
		}()
	}
	ready.Wait()
	return notifyReady()
}

func pairs(n int) error {
	must(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 16, Max: 1 << 16}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	var keep []net.Conn
	for range n {
		a, err := net.Dial("tcp", l.Addr().String())
		must(err)
		b, err := l.Accept()
		must(err)
		keep = append(keep, a, b)
	}
	err = notifyReady()
	keep[0].Close()
	return err
}

// notifyReady says READY=1 and stays.
func notifyReady() error {
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	must(err)
	_, err = c.Write([]byte("READY=1"))
	must(err)
	return sleep(0)
}

func eat(int) error {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGUSR1, unix.SIGUSR2)
	for s := range c {
		if s == unix.SIGUSR1 {
			b, err := unix.Mmap(-1, 0, 1<<30, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
			must(err)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
		}
		bomb()
	}
	return nil
}

// bomb forks until it is not let any more, then lets all go.
func bomb() {
	var all []*os.Process
	self, err := filepath.EvalSymlinks("/proc/self/exe")
	must(err)
	for range 1000 {
		p, err := os.StartProcess(self, []string{"chaos", "sleep"}, &os.ProcAttr{})
		if err != nil {
			break
		}
		all = append(all, p)
	}
	for _, p := range all {
		_ = p.Kill()
		_, _ = p.Wait()
	}
}
