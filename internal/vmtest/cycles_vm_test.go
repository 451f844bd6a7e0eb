//go:build vm

package vmtest

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rouse/internal/capture"
	"rouse/quiesce"
	"rouse/vmm"
)

// TestCycles snapshots a clone, clones the snapshot, and so on: nothing of a resume may stay in init.
func TestCycles(t *testing.T) {
	// Without the exception that faults need: what it lets through, neighbour discovery for one, would leave a copy early.
	before, after, ok := strings.Cut(faultConfiguration, gateException)
	if !ok {
		t.Fatal("the configuration has no exception")
	}
	img := faultImage(t, before+after)
	out := filepath.Join(t.TempDir(), "0")
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	forward := vmm.Config{Forwards: []vmm.Forward{{GuestPort: 7000}}}
	if _, err := vmm.Bake(ctx, vmm.BakeConfig{Image: img, Output: out, BootTimeout: 2 * time.Minute, VM: forward}); err != nil {
		t.Fatal(err)
	}
	m, err := vmm.ReadManifest(out)
	if err != nil {
		t.Fatal(err)
	}
	clones := Clone(t, out, 1)
	vm, port := clones[0].VM, clones[0].Forwards[0].HostPort
	dir := t.TempDir()
	var first, st faultStat
	var minor, major []int64
	g := Talk(t, vm)
	for cycle := range *faultCycles {
		s, r := g.Wait("running")
		if r.Kind != "adjust" || r.Outcome != "open" || r.Uncontrolled || int(s.Generation) != cycle+1 {
			t.Fatalf("cycle %d: generation %d, report %+v", cycle, s.Generation, r)
		}
		checkLaw(t, r)
		if r.Faults != nil {
			minor, major = append(minor, r.Faults.Minor), append(major, r.Faults.Major)
		}
		f := &faulty{t: t, g: g, port: port}
		if st = f.stat(); cycle == 1 {
			first = st
		}
		var q quiesce.Report
		g.Do("rouse-quiesce", nil, &q)
		memory := filepath.Join(dir, fmt.Sprint("memory", cycle%2))
		func() {
			ctx, cancel := context.WithTimeout(context.Background(), Timeout)
			defer cancel()
			if err := vm.Snapshot(ctx, memory); err != nil {
				t.Fatal(err)
			}
		}()
		_ = vm.Close()
		pcap := filepath.Join(dir, "pcap")
		vm = Boot(t, out, func(v *vmm.Config) {
			v.Cmdline, v.Incoming, v.Machine, v.Forwards, v.Capture = m.Cmdline, memory, m.Machine, forward.Forwards, pcap
		})
		port = agentPort(t, vm)
		g = Talk(t, vm) // one at a time: it is a serial line
		silentUntilOpen(t, g, pcap)
	}
	t.Logf("%d cycles; init at first %+v, at last %+v; page faults from resume to open, minor %v, major %v", *faultCycles, first, st, minor, major)
	if *faultCycles > 2 && (st.FDs > first.FDs || st.Threads > first.Threads+4 || st.RSSKiB > first.RSSKiB+4096) {
		t.Errorf("init grew from %+v to %+v", first, st)
	}
}

// silentUntilOpen checks from outside that a copy said nothing before its gate was open.
func silentUntilOpen(t *testing.T, g *Guest, pcap string) {
	t.Helper()
	_, r := g.Wait("running")
	for _, p := range r.Phases {
		detail, ok := p.Detail.(map[string]any)
		if p.Name != "open" || !ok {
			continue
		}
		frames, err := capture.Read(pcap)
		if err != nil {
			t.Fatal(err)
		}
		lead := time.Duration(detail["announced-ns"].(float64) - detail["opened-ns"].(float64))
		if early, err := capture.BeforeRelease(frames, capture.GuestMAC, lead); err != nil || len(early) > 0 {
			t.Errorf("%d frames before the release: %v, %v", len(early), early, err)
		}
	}
}
