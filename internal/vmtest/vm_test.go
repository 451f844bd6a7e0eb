//go:build vm

package vmtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rouse/internal/capture"
	"rouse/quiesce"
	"rouse/service"
	"rouse/vmm"
)

var lab *Lab

func TestMain(m *testing.M) {
	var err error
	if lab, err = Open(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := lab.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

func forKernels(t *testing.T, test func(t *testing.T, series string)) {
	for _, series := range Kernels {
		t.Run(series, func(t *testing.T) { test(t, series) })
	}
}

func TestBootAndPowerOff(t *testing.T) {
	forKernels(t, func(t *testing.T, series string) {
		vm := Boot(t, lab.Image(t, series, "hostname = \"bare\"\n", nil), nil)
		g := Talk(t, vm)
		s, _ := g.Wait("running")
		if len(s.Problems) > 0 || s.Gate != "open" || s.Source != "vmgenid" || len(s.VMGenID) != 36 {
			t.Errorf("status %+v", s)
		}
		for _, command := range []string{"guest-ping", "guest-info"} {
			g.Do(command, nil, nil)
		}
		var status string
		if g.Do("guest-fsfreeze-status", nil, &status); status != "thawed" {
			t.Errorf("fsfreeze status %q", status)
		}
		_ = g.Try("guest-shutdown", map[string]string{"mode": "powerdown"}, nil) // the answer may not come any more
		select {
		case <-vm.Exited():
		case <-time.After(Timeout):
			t.Error("QEMU still runs")
		}
		if text := Console(vm); strings.Contains(text, "Kernel panic") {
			t.Error("the kernel panicked")
		}
	})
}

// A configuration that cannot be right ends the guest with the reason on the console.
func TestBadConfigurationPowersOff(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"unknown key":    {"hostnme = \"a\"\n", "/etc/rouse.toml:1: hostnme: no such key; did you mean hostname?"},
		"missing binary": {"[[service]]\nname = \"a\"\nexec = [\"/nowhere\"]\n", "/etc/rouse.toml:3: service[0].exec: /nowhere does not exist"},
		"bad address":    {"[[interface]]\naddresses = [\"10.0.2.15/240\"]\n", "/etc/rouse.toml:2"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			vm := Boot(t, lab.Image(t, "6.12", tt.text, nil), nil)
			select {
			case <-vm.Exited():
			case <-time.After(Timeout):
				t.Fatal("the guest goes on")
			}
			text := Console(vm)
			if !strings.Contains(text, tt.want) || strings.Contains(text, "Kernel panic") {
				t.Errorf("console lacks %q, or the kernel panicked:\n%s", tt.want, text)
			}
		})
	}
}

// everything is what a service needs in its configuration to be without the shield of PID 1: tests that serve devices and
// look at other processes are services in their guests.
const everything = `capabilities = [
	"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
	"linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
	"sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
	"sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
	"mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
	"checkpoint_restore",
]
`

// The root tests of packages that meet the kernel, in guests: the whole table of the device's ABI against
// the device that the kernel at hand allows, and the drain with its diag modules.
func TestInGuest(t *testing.T) {
	tests := map[string]struct{ args, env string }{
		"sysgenid": {`"-test.timeout=600s"`, ""},
		"sockdiag": {`"-test.timeout=600s"`, `"SOCKDIAG_OWN_MACHINE=1"`},
	}
	for name, tt := range tests {
		for _, series := range Kernels {
			t.Run(name+"/"+series, func(t *testing.T) {
				testInGuest(t, series, name, fmt.Sprintf(`modules = ["veth", "dummy", "bridge", "sch_netem", "sch_fq", "sch_tbf", "vsock_loopback"]

[[service]]
name = "tests"
exec = ["/tests", "-test.v", %s]
env = [%s]
oneshot = true
ready-timeout = "15m"
restart = "never"
%s`, tt.args, tt.env, everything))
			})
		}
	}
}

func testInGuest(t *testing.T, series, name, configuration string) {
	img := lab.Image(t, series, configuration, map[string]string{"/tests": lab.Binary(name + ".test")})
	vm := Boot(t, img, func(c *vmm.Config) { c.MemoryMiB = 1024 })
	g := Talk(t, vm)
	s := serviceDone(t, g, "tests")
	var lines []string
	g.Do("rouse-log", map[string]any{"service": "tests", "lines": 1000}, &lines)
	output := strings.Join(lines, "\n")
	if s.State != service.Done || s.ExitCode != 0 || !strings.HasSuffix(strings.TrimSpace(output), "PASS") {
		t.Errorf("state %s, status %d, output:\n%s", s.State, s.ExitCode, output)
	}
}

// serviceDone waits until a oneshot service has ended, one way or the other.
func serviceDone(t *testing.T, g *Guest, name string) service.Status {
	t.Helper()
	for deadline := time.Now().Add(4 * Timeout); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		var all []service.Status
		g.Do("rouse-services", nil, &all)
		for _, s := range all {
			if s.Name == name && (s.State == service.Done || s.State == service.Failed) {
				return s
			}
		}
	}
	t.Fatalf("service %s does not end", name)
	return service.Status{}
}

// Quiesce, snapshot, two clones, and what can be done with a clone.
func TestSnapshot(t *testing.T) {
	forKernels(t, func(t *testing.T, series string) {
		snapshot := Bake(t, lab.Web(t, series))
		t.Run("two clones", func(t *testing.T) { testTwoClones(t, snapshot) })
		t.Run("release", func(t *testing.T) { testReleaseKeepsConnection(t, snapshot) })
		t.Run("uncontrolled", func(t *testing.T) { testUncontrolled(t, snapshot) })
		t.Run("fsfreeze", func(t *testing.T) { testFsfreeze(t, snapshot) })
	})
}

func testTwoClones(t *testing.T, snapshot string) {
	clones := Clone(t, snapshot, 2)
	seen := map[string]bool{}
	for _, c := range clones {
		a, err := Browse(c.Forwards[0].HostPort).Get()
		if err != nil {
			t.Fatal(err)
		}
		if a.Generation != c.Status.Generation || c.Status.Generation != 1 {
			t.Errorf("clone %d: generation %d, its server acknowledged %d", c.Index, c.Status.Generation, a.Generation)
		}
		for _, v := range []string{a.Random, a.TicketKey, c.VMGenID} {
			if seen[v] {
				t.Errorf("clone %d repeats %s", c.Index, v)
			}
			seen[v] = true
		}
		checkOrder(t, Report(t, c.Report))
	}
	_ = vmm.CloseAll(clones)
	for _, c := range clones {
		checkSilence(t, c)
	}
}

// checkOrder checks the law: reseed before bump, bump before thaw, waiting before opening.
func checkOrder(t *testing.T, r quiesce.Report) {
	t.Helper()
	var names []string
	var last int64
	for _, p := range r.Phases {
		names = append(names, p.Name)
		if p.StartNS < last || p.Error != "" {
			t.Errorf("phase %s began at %d, the one before it ended at %d; error %q", p.Name, p.StartNS, last, p.Error)
		}
		last = p.StartNS + p.DurationNS
	}
	want := "shut entropy identity sever bump thaw wait hooks open"
	if got := strings.Join(names, " "); got != want || r.Outcome != "open" {
		t.Errorf("phases %s, outcome %s; want %s, open", got, r.Outcome, want)
	}
}

// checkSilence checks in a capture made outside of the guest that nothing left before the opening.
func checkSilence(t *testing.T, c *vmm.Clone) {
	t.Helper()
	frames, err := capture.Read(c.Capture)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range Report(t, c.Report).Phases {
		detail, ok := p.Detail.(map[string]any)
		if p.Name != "open" || !ok {
			continue
		}
		lead := time.Duration(detail["announced-ns"].(float64) - detail["opened-ns"].(float64))
		early, err := capture.BeforeRelease(frames, capture.GuestMAC, lead)
		if err != nil || len(early) > 0 {
			t.Errorf("clone %d: %d frames before the release: %v, %v", c.Index, len(early), early, err)
		}
		return
	}
	t.Errorf("clone %d: the report tells no opening", c.Index)
}

// The same machine goes on: an open connection is the same one afterwards.
func testReleaseKeepsConnection(t *testing.T, snapshot string) {
	c := Clone(t, snapshot, 1)[0]
	b := Browse(c.Forwards[0].HostPort)
	before, err := b.Get()
	if err != nil {
		t.Fatal(err)
	}
	g := Talk(t, c.VM)
	var r quiesce.Report
	if g.Do("rouse-quiesce", nil, &r); r.Outcome != "ready" {
		t.Fatalf("quiesce: %+v", r)
	}
	if err := g.Try("rouse-quiesce", nil, nil); err == nil {
		t.Error("a second quiesce was not refused")
	}
	var status string
	if g.Do("guest-fsfreeze-status", nil, &status); status != "frozen" {
		t.Errorf("fsfreeze status %q while quiesced", status)
	}
	g.Do("rouse-release", nil, nil)
	s, _ := g.Wait("running")
	after, err := b.Get()
	if err != nil {
		t.Fatal(err)
	}
	if b.Dials() != 1 || after.Requests != before.Requests+1 || s.Generation != 1 || s.Gate != "open" {
		t.Errorf("%d connections, %d requests after %d, generation %d, gate %s", b.Dials(), after.Requests, before.Requests, s.Generation, s.Gate)
	}
}

// A snapshot of a guest that nobody quiesced.
func testUncontrolled(t *testing.T, snapshot string) {
	c := Clone(t, snapshot, 1)[0]
	b := Browse(c.Forwards[0].HostPort)
	if _, err := b.Get(); err != nil { // and leave the connection open
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	memory := filepath.Join(t.TempDir(), "memory")
	if err := c.VM.Snapshot(ctx, memory); err != nil {
		t.Fatal(err)
	}
	m, err := vmm.ReadManifest(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	vm := Boot(t, snapshot, func(v *vmm.Config) {
		v.Cmdline, v.Incoming, v.Machine, v.Forwards = m.Cmdline, memory, m.Machine, []vmm.Forward{{GuestPort: 443}}
	})
	s, r := Talk(t, vm).Wait("running")
	if !r.Uncontrolled || r.UnguardedNS <= 0 || r.Kind != "adjust" || r.Outcome != "open" || r.Severed < 1 || s.Generation != 2 {
		t.Errorf("generation %d, report %+v", s.Generation, r)
	}
	checkOrder(t, r)
}

// The QEMU guest agent's own commands drive the whole flow.
func testFsfreeze(t *testing.T, snapshot string) {
	g := Talk(t, Clone(t, snapshot, 1)[0].VM)
	var n int
	if g.Do("guest-fsfreeze-freeze", nil, &n); n < 1 {
		t.Errorf("%d filesystems frozen", n)
	}
	s, _ := g.Wait("quiesced")
	if s.Gate != "shut" {
		t.Errorf("gate %s", s.Gate)
	}
	g.Do("guest-fsfreeze-thaw", nil, nil)
	if s, r := g.Wait("running"); s.Gate != "open" || r.Kind != "thaw" {
		t.Errorf("gate %s, report %s", s.Gate, r.Kind)
	}
}

// muteWeb is the example server that tracks and never acknowledges, and words for the command line.
func muteWeb(t *testing.T, series, words string) string {
	t.Helper()
	img := lab.Web(t, series, "-mute")
	words = "quiet rouse.adjust.timeout=3s " + words + "\n"
	if err := os.WriteFile(filepath.Join(img, vmm.CmdlineFile), []byte(words), 0o644); err != nil {
		t.Fatal(err)
	}
	return img
}

// A watcher that never acknowledges keeps the gate shut and is named.
func TestMuteWatcher(t *testing.T) {
	snapshot := Bake(t, muteWeb(t, "6.1", ""))
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	_, err := vmm.StartClones(ctx, vmm.CloneConfig{Snapshot: snapshot, Capture: dir, Timeout: 2 * time.Minute})
	var held *vmm.HeldError
	if !errors.As(err, &held) || !strings.Contains(err.Error(), "webserver") || !strings.Contains(err.Error(), "in service web") {
		t.Fatalf("error %v, want the watcher named", err)
	}
	if r := Report(t, held.Report); len(r.Late) != 1 || r.Late[0].Command != "webserver" {
		t.Errorf("late watchers %+v", r.Late)
	}
	frames, err := capture.Read(filepath.Join(dir, "clone-0.pcap"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		if f.From(capture.GuestMAC) {
			t.Errorf("a held clone sent a frame of %d bytes", len(f.Data))
		}
	}
}

// What a late watcher must not do is decided by the configuration.
func TestLateWatcherReleased(t *testing.T) {
	c := Clone(t, Bake(t, muteWeb(t, "6.12", "rouse.adjust.late=release")), 1)[0]
	if r := Report(t, c.Report); len(r.Late) != 1 || len(r.Warnings) == 0 || c.Status.Gate != "open" {
		t.Errorf("gate %s, report %+v", c.Status.Gate, r)
	}
}
