//go:build vm

package vmtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"rouse/control"
	"rouse/internal/capture"
	"rouse/service"
	"rouse/vmm"
)

// The gate as the world sees it: guests shut and open theirs with rousectl, and QEMU's filter-dump says what
// left. Each rung of the ladder is once the best that there is: modules are withheld by the kernel's own
// module_blacklist, which is the same to the guest as an image without them, and the one thing that Debian has
// built in, CONFIG_CGROUP_BPF, by a mount namespace without the cgroup hierarchy.
func TestGateFromOutside(t *testing.T) {
	forKernels(t, func(t *testing.T, series string) {
		img := gateImage(t, series)
		for _, c := range []struct {
			name, withheld string
			rungs          []gateRung
		}{
			{"all", "", []gateRung{{want: "nftables+tc", ms: 30000}}},
			{"without tc", "sch_ingress,cls_bpf", []gateRung{{want: "nftables", leaks: "packet", ms: 3000}}},
			{"without nftables", "nf_tables", []gateRung{
				{want: "cgroup+tc", ms: 3000},
				{want: "tc", noCgroup: true, ms: 3000}}},
			{"without both", "nf_tables,sch_ingress,cls_bpf", []gateRung{
				{want: "cgroup+fib", leaks: "packet arp nd", ms: 3000},
				{want: "fib", noCgroup: true, leaks: "packet arp nd multicast", ms: 3000}}},
		} {
			t.Run(c.name, func(t *testing.T) { testRungs(t, img, c.withheld, c.rungs) })
		}
	})
}

// gateRung is one rung, or two that complete each other, and what they do not see.
type gateRung struct {
	want     string
	noCgroup bool
	leaks    string
	ms       int
}

func gateImage(t *testing.T, series string) string {
	t.Helper()
	program := lab.program(t, "gateguest", "build", "-o", lab.Binary("gateguest"), "./internal/vmtest/gateguest")
	return lab.Image(t, series, `[[interface]]
name = "eth0"
addresses = ["10.0.2.15/24"]

[[service]]
name = "gateguest"
exec = ["/usr/bin/gateguest"]
ready = "port"
ready-port = 7000
`, map[string]string{"/usr/bin/gateguest": program})
}

// program builds what only some tests want.
func (l *Lab) program(t *testing.T, name string, args ...string) string {
	t.Helper()
	if err := l.goTool(args...); err != nil {
		t.Fatal(err)
	}
	return l.Binary(name)
}

func testRungs(t *testing.T, img, withheld string, rungs []gateRung) {
	pcap := filepath.Join(t.TempDir(), "pcap")
	vm := Boot(t, img, func(c *vmm.Config) {
		c.Capture, c.Forwards = pcap, []vmm.Forward{{GuestPort: 7000}}
		if withheld != "" {
			c.Cmdline += " module_blacklist=" + withheld
		}
	})
	g := Talk(t, vm)
	var s control.Status
	g.Wait("running")
	if g.Do("rouse-status", nil, &s); s.Mechanism != rungs[0].want {
		t.Errorf("PID 1 has a gate of %q, want %q", s.Mechanism, rungs[0].want)
	}
	w := wireTo(t, vm, pcap)
	for _, r := range rungs {
		t.Run(r.want, func(t *testing.T) {
			w.t = t
			w.shut(r)
			w.hold(r)
		})
	}
}

// wire is a connection to gateguest and the capture of all that the guest sends.
type wire struct {
	t     *testing.T
	port  uint16
	pcap  string
	conn  net.Conn
	lines *bufio.Scanner
}

// The guest's requests and answers; gateguest says what they mean.
type gateRequest struct {
	Op       string
	Tag      string
	Args     []string
	MS       int
	NoCgroup bool
	Seed     uint64
	Rounds   int
}

type gateAnswer struct {
	Out, Err    string
	Status      []struct{ Mechanism, State, Problem string }
	First, Last int
	Heard       string
	Killed      map[string]int
}

func wireTo(t *testing.T, vm *vmm.VM, pcap string) *wire {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	forwards, err := vm.Forwards(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{t: t, port: forwards[0].HostPort, pcap: pcap}
	w.conn, w.lines = w.dial()
	return w
}

func (w *wire) dial() (net.Conn, *bufio.Scanner) {
	w.t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", w.port))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(2 * Timeout)); err != nil {
		w.t.Fatal(err)
	}
	return c, bufio.NewScanner(c)
}

func (w *wire) send(r gateRequest) {
	w.t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		w.t.Fatal(err)
	}
	w.say(string(text))
}

func (w *wire) say(line string) {
	w.t.Helper()
	if _, err := w.conn.Write([]byte(line + "\n")); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) line() string {
	w.t.Helper()
	if !w.lines.Scan() {
		w.t.Fatalf("the connection did not survive: %v", w.lines.Err())
	}
	return w.lines.Text()
}

func (w *wire) answer() (a gateAnswer) {
	w.t.Helper()
	text := w.line()
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		w.t.Fatalf("%v in %q", err, text)
	}
	return a
}

// shut has the guest shut its gate and try to get out in every way; both sides write into the connection
// meanwhile, and both find it alive afterwards, with what was written.
func (w *wire) shut(r gateRung) {
	w.t.Helper()
	tag := fmt.Sprintf("shut-%s", r.want)
	w.send(gateRequest{Op: "closed", Tag: tag, Args: []string{"shut"}, MS: r.ms, NoCgroup: r.noCgroup})
	w.awaitSilence(tag)
	w.say("late")
	early, a := w.line(), w.answer()
	if a.Err != "" || early != "early" || a.Heard != "late" {
		w.t.Fatalf("host heard %q, guest %q, error %s", early, a.Heard, a.Err)
	}
	var shut []string
	for _, s := range a.Status {
		if s.State == "shut" && s.Problem == "" {
			shut = append(shut, s.Mechanism)
		}
	}
	if got := strings.Join(shut, "+"); got != r.want {
		w.t.Errorf("shut by %q, want %q; status %+v", got, r.want, a.Status)
	}
	left := w.between(tag, a.First, a.Last)
	for _, f := range left {
		if !slices.Contains(strings.Fields(r.leaks), kindOf(f)) {
			w.t.Errorf("left while shut: %s %x", kindOf(f), f.Data)
		}
	}
	w.t.Logf("%s: shut for %d ms, %d frames that it does not see (%s)", r.want, r.ms, len(left), r.leaks)
}

// hold lets the connection go on, and no new one come about in either direction until the gate opens.
func (w *wire) hold(r gateRung) {
	w.t.Helper()
	tag := fmt.Sprintf("hold-%s", r.want)
	w.send(gateRequest{Op: "closed", Tag: tag, Args: []string{"hold"}, MS: 2000, NoCgroup: r.noCgroup})
	if r.want == "fib" {
		if a := w.answer(); !strings.Contains(a.Err, "knows no hold") {
			w.t.Errorf("hold: %+v", a)
		}
		return
	}
	early := w.line()
	other := &wire{t: w.t, port: w.port}
	other.conn, other.lines = other.dial() // QEMU accepts it, and asks the guest
	w.say("late")
	a := w.answer()
	if a.Err != "" || early != "early" || a.Heard != "late" {
		w.t.Fatalf("host heard %q, guest %q, error %s", early, a.Heard, a.Err)
	}
	for _, f := range w.between(tag, a.First, a.Last) {
		if flags := tcpFlags(f); flags&2 != 0 {
			w.t.Errorf("a SYN left while held, flags %#x: %x", flags, f.Data)
		}
	}
	other.send(gateRequest{Op: "ctl", Args: []string{"status"}}) // comes about now, by retransmission
	if a := other.answer(); a.Err != "" {
		w.t.Errorf("over the new connection: %s", a.Err)
	}
}

// awaitSilence waits until the guest's ticks have stopped.
func (w *wire) awaitSilence(tag string) {
	w.t.Helper()
	last, since := 0, time.Now()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		ticks := w.ticks(tag)
		if n := len(ticks); n != last || n == 0 {
			last, since = n, time.Now()
		} else if time.Since(since) > 500*time.Millisecond {
			return
		}
	}
	w.t.Fatalf("the guest does not fall silent: %d ticks", last)
}

// tick is one of the guest's numbered datagrams, in a capture.
type tick struct{ frame, number int }

func (w *wire) ticks(tag string) (found []tick) {
	w.t.Helper()
	for i, f := range w.sent() {
		_, text, ok := bytes.Cut(f.Data, []byte("tick "+tag+" "))
		if number, _, end := bytes.Cut(text, []byte(".")); ok && end {
			n, err := strconv.Atoi(string(number))
			if err != nil {
				w.t.Fatal(err)
			}
			found = append(found, tick{i, n})
		}
	}
	return found
}

// sent is every frame of the guest so far.
func (w *wire) sent() []capture.Frame {
	w.t.Helper()
	frames, err := capture.Read(w.pcap)
	if err != nil {
		w.t.Fatal(err)
	}
	return slices.DeleteFunc(frames, func(f capture.Frame) bool { return !f.From(capture.GuestMAC) })
}

// between gives the frames that left between two ticks: the first was sent when the gate was known to be set,
// the last when it was being opened.
func (w *wire) between(tag string, first, last int) []capture.Frame {
	w.t.Helper()
	from, to := -1, -1
	for _, k := range w.ticks(tag) {
		if k.number <= first {
			from = k.frame
		}
		if k.number >= last && to < 0 {
			to = k.frame
		}
	}
	if from < 0 || to < 0 {
		w.t.Fatalf("no tick before or after %d to %d was captured: the capture proves nothing", first, last)
	}
	return w.sent()[from+1 : to]
}

// kindOf tells frames apart as a gate's coverage does.
func kindOf(f capture.Frame) string {
	d := f.Data
	switch kind := uint16(d[12])<<8 | uint16(d[13]); {
	case kind == 0x88b5:
		return "packet"
	case kind == 0x0806:
		return "arp"
	case kind == 0x86dd && len(d) > 54 && d[20] == 58 && d[54] >= 133 && d[54] <= 137:
		return "nd"
	case d[0]&1 != 0:
		return "multicast"
	}
	return "unicast"
}

// tcpFlags are those of an IPv4 segment; 0 for others.
func tcpFlags(f capture.Frame) byte {
	if d := f.Data; len(d) >= 54 && d[12] == 8 && d[13] == 0 && d[23] == 6 {
		return d[14+int(d[14]&15)*4+13]
	}
	return 0
}

// seedOf is ROUSE_SEED, or a new one, which is told.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("ROUSE_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("ROUSE_SEED=%d", seed)
	return seed
}

// rousectl is killed at random moments of shutting and opening: what stands then is a whole state, and the next
// command works. ROUSE_SEED replays a run.
func TestGateCommandKilled(t *testing.T) {
	seed := seedOf(t)
	forKernels(t, func(t *testing.T, series string) {
		pcap := filepath.Join(t.TempDir(), "pcap")
		vm := Boot(t, gateImage(t, series), func(c *vmm.Config) {
			c.Capture, c.Forwards = pcap, []vmm.Forward{{GuestPort: 7000}}
		})
		Talk(t, vm).Wait("running")
		w := wireTo(t, vm, pcap)
		w.send(gateRequest{Op: "kill", Seed: seed, Rounds: 24})
		a := w.answer()
		if a.Err != "" {
			t.Fatal(a.Err)
		}
		for what, n := range a.Killed {
			t.Logf("%3d %s", n, what)
		}
	})
}

// The gate's root tests in guests, with the tools that are their oracles: whole-machine gates are tried there
// too, and the kernels are those that users run.
func TestFirewallInGuest(t *testing.T) {
	program := lab.program(t, "firewall.test", "test", "-c", "-tags", "root", "-o", lab.Binary("firewall.test"), "./firewall")
	files := withLibraries(t, "sh", "nft", "ip", "tc", "awk", "sed", "cat", "grep", "sysctl")
	files["/tests"], files["/etc/protocols"] = program, "/etc/protocols" // names that nft prints
	goldens, err := filepath.Glob("../../firewall/testdata/*.nft")
	if err != nil || len(goldens) == 0 {
		t.Fatalf("%d goldens: %v", len(goldens), err)
	}
	for _, g := range goldens {
		files["/testdata/"+filepath.Base(g)] = g
	}
	forKernels(t, func(t *testing.T, series string) {
		img := lab.Image(t, series, `modules = ["veth", "dummy", "bridge"]

[[service]]
name = "tests"
exec = ["/tests", "-test.v", "-test.timeout=700s"]
env = ["CI=1", "GATE_MACHINE=1", "GATE_WANT=nftables+tc", "PATH=/bin"]
oneshot = true
ready-timeout = "15m"
restart = "never"
`+everything, files)
		checkTests(t, img, "tests")
	})
}

// withLibraries names programs of this machine, and the libraries that they are linked with, by their place
// in a guest.
func withLibraries(t *testing.T, programs ...string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, name := range programs {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if files["/bin/"+name], err = filepath.EvalSymlinks(path); err != nil {
			t.Fatal(err)
		}
		text, err := exec.Command("ldd", path).Output()
		if err != nil {
			t.Fatalf("ldd %s: %v", path, err)
		}
		for _, word := range strings.Fields(string(text)) {
			if !strings.HasPrefix(word, "/") {
				continue
			}
			if files[word], err = filepath.EvalSymlinks(word); err != nil {
				t.Fatal(err)
			}
		}
	}
	return files
}

// checkTests boots an image whose service is a test binary, and wants it to pass.
func checkTests(t *testing.T, img, name string) {
	t.Helper()
	g := Talk(t, Boot(t, img, func(c *vmm.Config) { c.MemoryMiB = 1024 }))
	s := serviceDone(t, g, name)
	var lines []string
	g.Do("rouse-log", map[string]any{"service": name, "lines": 1000}, &lines)
	output := strings.Join(lines, "\n")
	if s.State != service.Done || s.ExitCode != 0 || !strings.HasSuffix(strings.TrimSpace(output), "PASS") {
		t.Errorf("state %s, status %d, output:\n%s", s.State, s.ExitCode, output)
	}
	for _, l := range lines {
		if strings.Contains(l, "--- SKIP") {
			t.Log(l)
		}
	}
}
