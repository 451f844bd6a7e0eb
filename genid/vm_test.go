//go:build vm

package genid

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rouse/config"
	"rouse/internal/vmtest"
	"rouse/quiesce"
	"rouse/rootfs/image"
	"rouse/vmm"
)

// openLab builds what the guests run, once.
var openLab = sync.OnceValues(func() (*vmtest.Lab, error) {
	here, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	if err := os.Chdir("../internal/vmtest"); err != nil { // it finds the repository from its own folder
		return nil, err
	}
	lab, err := vmtest.Open()
	err = errors.Join(err, os.Chdir(here))
	if err != nil {
		return nil, err
	}
	atExit = func() { _ = lab.Close() }
	for name, pkg := range map[string]string{"probe": "rouse/genid/testdata/probe", "plaininit": "rouse/examples/plaininit"} {
		cmd := exec.Command("go", "build", "-o", lab.Binary(name), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go build %s: %w\n%s", pkg, err, text)
		}
	}
	return lab, nil
})

func theLab(t *testing.T) *vmtest.Lab {
	t.Helper()
	lab, err := openLab()
	if err != nil {
		t.Fatal(err)
	}
	return lab
}

// Kernels without a VMGenID driver: 6.1 has none; where 6.12 has one its initcall is left out, which is
// spelled as in drivers/virt/vmgenid.c.
var driverless = []struct{ series, cmdline string }{
	{"6.1", "quiet"},
	{"6.12", "quiet initcall_blacklist=vmgenid_plaform_driver_init"},
}

// Two clones of one snapshot, by an init that knows nothing of it, draw the same bytes; with rouse, no
// draw after the resume is the other one's. No driver of the kernel helps.
func TestClonesDrawTheirOwn(t *testing.T) {
	for _, tt := range driverless {
		t.Run(tt.series+"/plain", func(t *testing.T) { testPlainDraws(t, tt.series, tt.cmdline) })
		t.Run(tt.series+"/rouse", func(t *testing.T) { testRouseDraws(t, tt.series, tt.cmdline) })
	}
}

func testPlainDraws(t *testing.T, series, cmdline string) {
	// While it is young a kernel reseeds by itself about once a second (crng_reseed_interval, drivers/char/random.c).
	// Where that falls between the snapshot and the first draw, it hides the fault: of the next snapshot, then.
	const snapshots = 6
	for range snapshots {
		clones := plainClones(t, series, cmdline, "draw", drawLine, 20)
		a, b := draws(vmtest.Console(clones[0])), draws(vmtest.Console(clones[1]))
		equal, compared := 0, common(a, b)
		for _, n := range compared {
			if a[n] != b[n] {
				break
			}
			equal++
		}
		t.Logf("draws %d to %d are in both clones; the first %d of them are equal", compared[0], compared[len(compared)-1], equal)
		if equal > 0 {
			return
		}
	}
	t.Errorf("the first draws after %d resumes differ: this guest shows no fault that a reseed could mend", snapshots)
}

func testRouseDraws(t *testing.T, series, cmdline string) {
	lab := theLab(t)
	img := lab.Image(t, series, "[[service]]\nname = \"draw\"\nexec = [\"/bin/draw\"]\n", map[string]string{"/bin/draw": lab.Binary("probe")})
	if err := os.WriteFile(filepath.Join(img, vmm.CmdlineFile), []byte(cmdline+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	vm := vmtest.Boot(t, img, nil)
	g := vmtest.Talk(t, vm)
	g.Wait("running")
	waitLog(t, g, func(text string) bool { return len(draws(text)) > 5 })
	var r quiesce.Report
	if g.Do("rouse-quiesce", nil, &r); r.Outcome != "ready" {
		t.Fatalf("quiesce: %+v", r)
	}
	text := serviceLog(g)
	checkDriverless(t, text)
	before := draws(text)
	last := slices.Max(common(before, before))
	ctx, cancel := context.WithTimeout(context.Background(), vmtest.Timeout)
	defer cancel()
	snapshot := filepath.Join(t.TempDir(), "memory")
	if err := vm.Snapshot(ctx, snapshot); err != nil {
		t.Fatal(err)
	}
	vm.Close()
	var drawn [2]map[int]string
	for i := range drawn {
		clone := vmtest.Talk(t, vmtest.Boot(t, img, func(c *vmm.Config) { c.Incoming = snapshot }))
		_, r := clone.Wait("running")
		drawn[i] = draws(waitLog(t, clone, func(text string) bool { return draws(text)[last+5] != "" }))
		t.Logf("clone %d: %s", i, entropy(r))
	}
	compared := 0
	for _, n := range common(drawn[0], drawn[1]) {
		if n <= last {
			continue // of the time before the snapshot
		}
		compared++
		if drawn[0][n] == drawn[1][n] {
			t.Errorf("draw %d after a snapshot at draw %d is %s in both clones", n, last, drawn[0][n])
		}
	}
	if t.Logf("%d draws after the resume compared", compared); compared < 5 {
		t.Errorf("only %d draws could be compared", compared)
	}
}

// entropy is what the report says of the reseed.
func entropy(r quiesce.Report) string {
	for _, p := range r.Phases {
		if p.Name == "entropy" {
			detail, _ := json.Marshal(p.Detail)
			return fmt.Sprintf("entropy phase %v after the resume was noticed, took %v: %s",
				time.Duration(p.StartNS-r.StartNS), time.Duration(p.DurationNS), detail)
		}
	}
	return "no entropy phase"
}

// TestNoticed shows in a real guest that one clone is one change of the identity, however many sources tell of
// it, and how soon each of them does.
func TestNoticed(t *testing.T) {
	for _, series := range vmtest.Kernels {
		t.Run(series, func(t *testing.T) {
			for _, vm := range plainClones(t, series, "quiet", "watch", settledLine, 1) {
				text := vmtest.Console(vm)
				changes := changeLine.FindAllStringSubmatch(text, -1)
				if len(changes) != 1 {
					t.Fatalf("%d changes for one clone:\n%s", len(changes), text)
				}
				t.Logf("noticed %s us after the last look before the snapshot, looks before came every %s us; hints (us later): %v",
					changes[0][1], changes[0][3], eventLine.FindAllString(text, -1))
			}
		})
	}
}

// mostWakeups is how often PID 1 may wake in a second while nothing happens.
const mostWakeups = 10

// TestIdleCost counts how often the threads of PID 1 go to sleep in a running guest. The emulated processor is some
// ten times slower than a real one, so what it says of CPU time is only told; TestWatchIsOneWakeup has the native figure.
func TestIdleCost(t *testing.T) {
	lab := theLab(t)
	for _, series := range vmtest.Kernels {
		t.Run(series, func(t *testing.T) {
			img := lab.Image(t, series, "[[service]]\nname = \"draw\"\nexec = [\"/bin/idle\"]\noneshot = true\nready-timeout = \"2m\"\nrestart = \"never\"\n",
				map[string]string{"/bin/idle": lab.Binary("probe")})
			ctx, cancel := context.WithTimeout(context.Background(), vmtest.Timeout)
			defer cancel()
			// From the console: asking would be work for PID 1.
			text := waitConsole(t, ctx, vmtest.Boot(t, img, nil), idleLine.MatchString)
			m := idleLine.FindStringSubmatch(text)
			t.Logf("PID 1, booting is over, nobody asks: %s", m[0])
			seconds, err := strconv.ParseFloat(m[1], 64)
			switches, err2 := strconv.ParseFloat(m[2], 64)
			if err != nil || err2 != nil || switches > mostWakeups*seconds {
				t.Errorf("%v wakeups in %v s, want at most %d a second (%v, %v)", switches, seconds, mostWakeups, err, err2)
			}
		})
	}
}

var (
	drawLine   = regexp.MustCompile(`draw (\d+) ([0-9a-f]{64})\r?\n`)
	changeLine = regexp.MustCompile(`change (\d+) (\S+), mean (\d+)\r?\n`)
	// settledLine comes 2000 looks after a change, when every other source has told of the clone too.
	settledLine = regexp.MustCompile(`settled\r?\n`)
	eventLine   = regexp.MustCompile(`event \d+`)
	idleLine    = regexp.MustCompile(`idle seconds=(\S+) cpu-us=\d+ switches=(\d+).*`)
)

// draws are the complete draws in a text by their number.
func draws(text string) map[int]string {
	all := map[int]string{}
	for _, m := range drawLine.FindAllStringSubmatch(text+"\n", -1) {
		n, _ := strconv.Atoi(m[1])
		all[n] = m[2]
	}
	return all
}

// common are the numbers in both, in order.
func common(a, b map[int]string) []int {
	var list []int
	for n := range a {
		if b[n] != "" {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list
}

func checkDriverless(t *testing.T, text string) {
	t.Helper()
	if !strings.Contains(text, "driver 0") {
		t.Errorf("the kernel's VMGenID driver is there, or the probe did not say:\n%s", text)
	}
}

// plainClones boots plaininit with the probe in a mode, snapshots it without any care, and returns two
// clones that have each printed n lines since.
func plainClones(t *testing.T, series, cmdline, mode string, line *regexp.Regexp, n int) []*vmm.VM {
	t.Helper()
	lab := theLab(t)
	kernel, dir := lab.Kernel(t, series), t.TempDir()
	initrd := filepath.Join(dir, "initrd")
	f, err := os.Create(initrd)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := image.Build(f, image.Spec{Init: lab.Binary("plaininit"), ModulesDir: filepath.Join(kernel, "modules"),
		Optional: config.GuestModules(), Compress: "none",
		Files: []image.File{{Path: "/bin/" + mode, Source: lab.Binary("probe"), Mode: 0o755}}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), vmtest.Timeout)
	defer cancel()
	machine := vmm.Config{Kernel: filepath.Join(kernel, "vmlinuz"), Initrd: initrd, GUID: "auto",
		Cmdline: "console=ttyS0 panic=-1 plain.exec=/bin/" + mode + " " + cmdline}
	source := start(t, ctx, machine)
	begun := map[string]*regexp.Regexp{"draw": regexp.MustCompile(`draw 20 `), "watch": regexp.MustCompile(`watch \[`)}[mode]
	text := waitConsole(t, ctx, source, func(text string) bool { return begun.MatchString(text) })
	if mode == "draw" {
		checkDriverless(t, text)
	} else {
		t.Logf("sources: %s", regexp.MustCompile(`(watch|log) .*`).FindAllString(text, -1))
	}
	machine.Incoming = filepath.Join(dir, "memory")
	if err := source.Snapshot(ctx, machine.Incoming); err != nil {
		t.Fatal(err)
	}
	source.Close()
	var clones []*vmm.VM
	for range 2 {
		vm := start(t, ctx, machine)
		waitConsole(t, ctx, vm, func(text string) bool { return len(line.FindAllString(text, -1)) >= n })
		clones = append(clones, vm)
	}
	return clones
}

func start(t *testing.T, ctx context.Context, c vmm.Config) *vmm.VM {
	t.Helper()
	vm, err := vmm.Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { vm.Close() })
	return vm
}

func waitConsole(t *testing.T, ctx context.Context, vm *vmm.VM, done func(string) bool) string {
	t.Helper()
	return wait(t, ctx, done, func() string { return vmtest.Console(vm) })
}

// serviceLog is what the service "draw" has printed.
func serviceLog(g *vmtest.Guest) string {
	var lines []string
	g.Do("rouse-log", map[string]any{"service": "draw", "lines": 400}, &lines)
	return strings.Join(lines, "\n") + "\n"
}

func waitLog(t *testing.T, g *vmtest.Guest, done func(string) bool) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), vmtest.Timeout)
	defer cancel()
	return wait(t, ctx, done, func() string { return serviceLog(g) })
}

// wait asks until what is said is enough.
func wait(t *testing.T, ctx context.Context, done func(string) bool, ask func() string) string {
	t.Helper()
	for {
		text := ask()
		if done(text) {
			return text
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%v; the last words:\n%s", ctx.Err(), text)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
