//go:build vm

package vmtest

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"rouse/quiesce"
	"rouse/service"
	"rouse/vmm"
)

var (
	faultSeed   = flag.Uint64("fault.seed", 1, "of the faults' order and moments")
	faultRounds = flag.Int("fault.rounds", 30, "how many faults")
	faultKind   = flag.String("fault.kind", "", "only this one")
	faultCycles = flag.Int("fault.cycles", 3, "snapshots in a row, each of a clone of the one before")
)

// faults are what happens at a random moment of a random flow: the words for the agent in the guest, and those that undo it.
var faults = []struct{ name, do, undo string }{
	{"none", "", ""},
	{"service killed", "kill victim SIGKILL", ""},
	{"service stopped", "kill victim SIGSTOP", "kill victim SIGCONT"},
	{"watcher stopped", "kill watch SIGSTOP", "kill watch SIGCONT"},
	{"watcher killed", "kill watch SIGKILL", ""},
	{"watcher exits", "mode exit", "mode good"},
	{"watcher forks", "mode fork", "mode good"},
	{"watcher acknowledges the wrong value", "mode wrong", "mode good"},
	{"watcher acknowledges twice", "mode twice", "mode good"},
	{"watcher closes", "mode close", "mode good"},
	{"watcher never answers", "mode never", "mode good"},
	{"watcher floods", "mode flood", "mode good"},
	{"garbage at the control socket", "garbage", ""},
	{"second quiesce", "say rouse-quiesce", ""},
	{"release at any time", "say rouse-release", ""},
	{"generation twice", "say-generation", ""},
	{"generation back", "say-generation back", ""},
	{"clock forward", "clock 86400", "clock -86400"},
	{"clock back", "clock -86400", "clock 86400"},
	{"gate tampered with", "gate", ""},
	{"services thawed by somebody else", "thaw", ""},
	{"out of memory in a service", "kill eater SIGUSR1", ""},
	{"fork bomb in a service", "kill eater SIGUSR2", ""},
	{"full disk", "fill /run", "unfill /run"},
	{"descriptors exhausted", "limit 3", "limit 0"},
	{"panic of PID 1", "panic", ""},
}

// gateException lets the agent be talked to while the gate is shut.
const gateException = `[[gate.allow]]
protocol = "tcp"
port = 7000
`

const faultConfiguration = `hostname = "faults"

[[interface]]
addresses = ["10.0.2.15/24"]
gateway4 = "10.0.2.2"

[quiesce]
timeout = "2s"
settle-timeout = "2s"
freeze-timeout = "2s"

[adjust]
timeout = "400ms"

` + gateException + `
[[service]]
name = "agent"
exec = ["/chaos", "agent"]
settle = "off"

[[service]]
name = "watch"
exec = ["/chaos", "watch"]
restart = "always"
restart-delay = "50ms"
start-limit = 100

[[service]]
name = "victim"
exec = ["/chaos", "sleep"]
restart = "always"
restart-delay = "50ms"
start-limit = 100

[[service]]
name = "eater"
exec = ["/chaos", "eat"]
restart = "always"
restart-delay = "50ms"
start-limit = 100
memory-max = "24M"
pids-max = 40
`

// faultImage has an init that panics on demand, and the program that misbehaves.
func faultImage(t testing.TB, configuration string) string {
	t.Helper()
	chaos, rouse := lab.Binary("chaos"), lab.Binary("init-vmfault")
	if _, err := os.Stat(chaos); err != nil {
		for _, args := range [][]string{{"build", "-o", chaos, "./internal/vmtest/chaos"}, {"build", "-tags", "vmfault", "-o", rouse, "./init"}} {
			if err := lab.goTool(args...); err != nil {
				t.Fatal(err)
			}
		}
	}
	faulty := *lab
	faulty.dir = t.TempDir()
	if err := os.Symlink(rouse, faulty.Binary("init")); err != nil {
		t.Fatal(err)
	}
	return faulty.Image(t, "6.12", configuration, map[string]string{"/chaos": chaos})
}

// faulty is a guest under fire.
type faulty struct {
	t    *testing.T
	g    *Guest
	port uint16
	gen  int
	// generations that were told to the guest, so that one of them can come back
	last int
}

// agent says words to the agent in the guest; it hears them also while the gate is shut.
func (f *faulty) agent(format string, args ...any) string {
	f.t.Helper()
	words := fmt.Sprintf(format, args...)
	var err error
	for range 8 {
		var answer string
		if answer, err = f.ask(words); err == nil {
			if strings.HasPrefix(answer, "error") {
				f.t.Fatalf("%s: %s", words, answer)
			}
			return strings.TrimSpace(answer)
		}
		time.Sleep(50 * time.Millisecond) // severed: it is a connection from outside
	}
	f.t.Fatalf("%s: %v", words, err)
	return ""
}

func (f *faulty) ask(words string) (string, error) {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", f.port), 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(c, words); err != nil {
		return "", err
	}
	return bufio.NewReader(c).ReadString('\n')
}

func agentPort(t *testing.T, vm *vmm.VM) uint16 {
	t.Helper()
	all, err := vm.Forwards(context.Background())
	if err != nil || len(all) == 0 {
		t.Fatalf("no port: %v", err)
	}
	return all[0].HostPort
}

type faultStat struct {
	Frozen       bool
	FDs, Threads int
	RSSKiB       int `json:"rss-kib"`
}

func (f *faulty) stat() (s faultStat) {
	f.t.Helper()
	text := f.agent("stat")
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		f.t.Fatalf("%s: %v", text, err)
	}
	return s
}

// newGeneration tells the guest that it is a copy.
func (f *faulty) newGeneration(back bool) error {
	f.gen++
	n := f.gen
	if back {
		n = f.last // known by the guest, but not its last one
	} else {
		f.last = f.gen - 1
	}
	return f.g.Try("rouse-resumed", map[string]any{"generation": fmt.Sprintf("host-%d", n), "seed": []byte("seed")}, nil)
}

// TestFaults lets one thing go wrong after the other, in an order and at moments that -fault.seed chooses, and
// checks after each that the guest is as it should be.
func TestFaults(t *testing.T) {
	img := faultImage(t, faultConfiguration)
	vm := Boot(t, img, func(c *vmm.Config) { c.Forwards = []vmm.Forward{{GuestPort: 7000}} })
	f := &faulty{t: t, g: Talk(t, vm), port: agentPort(t, vm)}
	f.g.Wait("running")
	f.agent("mode good")
	r := rand.New(rand.NewPCG(*faultSeed, 0))
	order := r.Perm(len(faults))
	cases := map[string]int{}
	for round := range *faultRounds {
		i := order[round%len(order)]
		if *faultKind != "" {
			i = slices.IndexFunc(faults, func(x struct{ name, do, undo string }) bool { return x.name == *faultKind })
		}
		flow, after := r.IntN(4), time.Duration(r.IntN(200))*time.Millisecond
		f.round(faults[i].name, faults[i].do, faults[i].undo, flow, after)
		cases[faults[i].name]++
		if t.Failed() {
			t.Fatalf("round %d: %s after %v in flow %d; -args -fault.seed=%d", round, faults[i].name, after, flow, *faultSeed)
		}
	}
	if text := Console(vm); strings.Contains(text, "Kernel panic") {
		t.Error("the kernel panicked")
	}
	t.Logf("%d faults: %v; init at the end: %+v", *faultRounds, cases, f.stat())
}

// round is one fault in one flow: a quiesce and a release, a quiesce and a copy, a copy without a quiesce, or two copies
// in a row.
func (f *faulty) round(name, do, undo string, flow int, after time.Duration) {
	f.t.Helper()
	var before []quiesce.Report
	f.g.Do("rouse-reports", nil, &before)
	f.begin(do, after)
	var err error
	if flow < 2 {
		err = f.g.Try("rouse-quiesce", nil, nil)
		time.Sleep(after / 2) // a fault that comes when the guest is quiesced
	}
	if strings.HasPrefix(do, "say-generation") {
		_ = f.newGeneration(strings.HasSuffix(do, "back"))
	}
	if flow == 0 {
		_ = f.g.Try("rouse-release", nil, nil)
	} else if gerr := f.newGeneration(false); gerr != nil {
		f.t.Errorf("rouse-resumed: %v", gerr)
	}
	if flow == 3 {
		_ = f.newGeneration(false)
	}
	f.undo(undo)
	f.recover()
	f.check(name, before, err)
}

func (f *faulty) begin(do string, after time.Duration) {
	switch {
	case do == "" || strings.HasPrefix(do, "say-generation"):
	case do == "gate":
		f.agent("at %d forceopen", after.Milliseconds())
	default:
		f.agent("at %d %s", after.Milliseconds(), do)
	}
}

// undo waits until the fault has happened for sure.
func (f *faulty) undo(undo string) {
	f.agent("wait")
	if undo != "" {
		f.agent("%s", undo)
	}
}

// recover brings the guest back to running, as a host would: whoever is held is asked for another try.
func (f *faulty) recover() {
	f.t.Helper()
	for range 10 {
		s, _ := f.g.Wait("running", "held", "quiesced")
		if s.State == "running" {
			return
		}
		time.Sleep(200 * time.Millisecond) // a late watcher may come by itself
		_ = f.g.Try("rouse-release", nil, nil)
	}
	s, r := f.g.Wait("running", "held", "quiesced")
	f.t.Fatalf("it does not come to run again: %+v, %+v", s, r)
}

// check is what must be so after every fault.
func (f *faulty) check(name string, before []quiesce.Report, qerr error) {
	f.t.Helper()
	s, _ := f.g.Wait("running")
	if s.Gate != "open" || s.Outdated != 0 {
		f.t.Errorf("%s: gate %s with %d outdated watchers", name, s.Gate, s.Outdated)
	}
	if st := f.stat(); st.Frozen {
		f.t.Errorf("%s: services are frozen in a machine that runs", name)
	}
	var all []quiesce.Report
	f.g.Do("rouse-reports", nil, &all)
	last := 0
	for _, r := range before {
		last = max(last, r.Index)
	}
	faulted := false
	for _, r := range all {
		if r.Index <= last {
			continue
		}
		faulted = faulted || r.Kind == "fault"
		checkLaw(f.t, r)
		if (r.Outcome != "open" && r.Outcome != "ready") && r.Reason == "" {
			f.t.Errorf("%s: %s %s without a reason", name, r.Kind, r.Outcome)
		}
	}
	if qerr != nil && strings.TrimSpace(qerr.Error()) == "" {
		f.t.Errorf("%s: a quiesce failed without a reason", name)
	}
	if strings.HasPrefix(name, "panic") != faulted {
		f.t.Errorf("%s: fault reported: %v", name, faulted)
	}
	f.services(name)
}

// checkLaw checks the order of an adjust's steps by their times, as far as it came.
func checkLaw(t testing.TB, r quiesce.Report) {
	t.Helper()
	if r.Kind != "adjust" {
		return
	}
	law := []string{"shut", "entropy", "identity", "sever", "bump", "thaw", "wait", "hooks", "open"}
	at, end := -1, int64(0)
	for _, p := range r.Phases {
		i := slices.Index(law, p.Name)
		// Held for late watchers, the wait is repeated, and after a hook made one late.
		if i < at && p.Name != "wait" || p.StartNS < end {
			t.Errorf("adjust %d: phase %s after %s", r.Index, p.Name, law[max(at, 0)])
		}
		at, end = max(at, i), p.StartNS+p.DurationNS
		if p.Error != "" && r.Outcome == "open" && p.Name != "wait" {
			t.Errorf("adjust %d: open in spite of %s", r.Index, p.Error)
		}
	}
}

// services all run again.
func (f *faulty) services(name string) {
	f.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var all []service.Status
		f.g.Do("rouse-services", nil, &all)
		down := slices.DeleteFunc(all, func(s service.Status) bool { return s.State == service.Running })
		if len(down) == 0 {
			return
		}
		if slices.ContainsFunc(down, func(s service.Status) bool { return s.State == service.Failed }) {
			// Killed too often within its window, as its policy says; the next round wants it again.
			_ = f.g.Try("rouse-service", map[string]any{"name": down[0].Name, "action": "start"}, nil)
		}
		if time.Now().After(deadline) {
			f.t.Errorf("%s: services do not come up again: %+v", name, down)
			return
		}
	}
}

// BenchmarkResumeToOpen is one resume of a machine with so many tracked watchers, by phase, in milliseconds.
func BenchmarkResumeToOpen(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("watchers=%d", n), func(b *testing.B) {
			configuration := fmt.Sprintf("[adjust]\ntimeout = \"30s\"\n[[service]]\nname = \"crowd\"\nexec = [\"/chaos\", \"crowd\", \"%d\"]\nready = \"notify\"\nready-timeout = \"60s\"\n", n)
			snapshot := Bake(b, faultImage(b, configuration))
			for b.Loop() {
				c := Clone(b, snapshot, 1)[0]
				r := Report(b, c.Report)
				checkLaw(b, r)
				inPhases(b, r)
				if r.Faults != nil {
					b.ReportMetric(float64(r.Faults.Minor), "minor-faults")
					b.ReportMetric(float64(r.Faults.Major), "major-faults")
				}
				_ = c.VM.Close()
			}
		})
	}
}

// BenchmarkQuiesce is one quiesce of a machine with so many connections, by phase, in milliseconds.
func BenchmarkQuiesce(b *testing.B) {
	for _, n := range []int{0, 1000} {
		b.Run(fmt.Sprintf("connections=%d", n), func(b *testing.B) {
			service := ""
			if n > 0 {
				service = fmt.Sprintf("[[service]]\nname = \"pairs\"\nexec = [\"/chaos\", \"pairs\", \"%d\"]\nready = \"notify\"\nready-timeout = \"60s\"\n", n)
			}
			vm := Boot(b, faultImage(b, service), nil)
			g := Talk(b, vm)
			g.Wait("running")
			for b.Loop() {
				var r quiesce.Report
				g.Do("rouse-quiesce", nil, &r)
				inPhases(b, r)
				g.Do("rouse-release", nil, nil)
			}
		})
	}
}

func inPhases(b *testing.B, r quiesce.Report) {
	sums := map[string]int64{"all": r.DurationNS}
	for _, p := range r.Phases {
		sums[p.Name] += p.DurationNS
	}
	for name, ns := range sums {
		b.ReportMetric(float64(ns)/1e6, name+"-ms")
	}
}
