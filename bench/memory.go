package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"rouse/quiesce"
	"rouse/vmm"
)

// memoryOptions are what may be done before a snapshot, so that it is small.
var memoryOptions = []struct{ name, config string }{
	{"as it is", ""},
	{"drop-caches", "[quiesce]\ndrop-caches = true\n"},
	{"drop-caches, compact", "[quiesce]\ndrop-caches = true\ncompact = true\n"},
}

// memory bakes one server with each of the options and resumes it: what the snapshot takes on the disk, and
// how many pages rouse has to fault in from the resume to the opening of its gate.
func memory(ctx context.Context, l *lab, r *Record) error {
	w, err := l.web(ctx)
	if err != nil {
		return err
	}
	for i := range l.repeat(3) {
		for j, o := range memoryOptions {
			if l.quick && j == 1 {
				continue // the last has it, too
			}
			if err := w.withOptions(ctx, r, fmt.Sprintf("snapshot-%d-%s", i, slug(o.name)), o.name, o.config); err != nil {
				return fmt.Errorf("%s: %w", o.name, err)
			}
		}
	}
	return nil
}

func (w *web) withOptions(ctx context.Context, r *Record, folder, name, config string) error {
	if err := w.l.rouseImage(w.image, webConfig+"\n"+config); err != nil {
		return err
	}
	snapshot := filepath.Join(w.l.dir, folder)
	defer os.RemoveAll(snapshot)
	if _, err := vmm.Bake(ctx, vmm.BakeConfig{Image: w.image, Output: snapshot, QuiesceTimeout: time.Minute,
		VM: vmm.Config{Forwards: []vmm.Forward{{GuestPort: webPort}}}}); err != nil {
		return fmt.Errorf("bake: %w", err)
	}
	size, err := allocated(snapshot)
	if err != nil {
		return err
	}
	r.add(name, 0, "size", "bytes", size)
	clones, err := vmm.StartClones(ctx, vmm.CloneConfig{Snapshot: snapshot, N: 1, NoVerify: true})
	if err != nil {
		return err
	}
	defer vmm.CloseAll(clones)
	var report quiesce.Report
	if err := json.Unmarshal(clones[0].Report, &report); err != nil {
		return err
	}
	if report.Faults != nil {
		r.add(name, 0, "minor-faults", "pages", float64(report.Faults.Minor))
		r.add(name, 0, "major-faults", "pages", float64(report.Faults.Major))
	}
	r.add(name, 0, "adjust", "ms", float64(report.DurationNS)/1e6)
	return nil
}

// allocated is what a folder's files take on the disk: holes are none.
func allocated(dir string) (float64, error) {
	var all int64
	err := filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil {
			all += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	})
	return float64(all), err
}

// cloneGrowth is the time until N clones are READY, each a process of its own on this machine's processors.
func cloneGrowth(ctx context.Context, l *lab, r *Record) error {
	w, err := l.bakedWeb(ctx)
	if err != nil {
		return err
	}
	sizes := []int{1, 2, 4, 8}
	if l.quick {
		sizes = sizes[:1]
	}
	for range l.repeat(3) {
		for _, n := range sizes {
			began := time.Now()
			clones, err := vmm.StartClones(ctx, vmm.CloneConfig{Snapshot: w.snapshot, N: n, NoVerify: true})
			if err != nil {
				return err
			}
			r.add("clones", n, "ready", "ms", time.Since(began).Seconds()*1000)
			if err := vmm.CloseAll(clones); err != nil {
				return err
			}
		}
	}
	return nil
}
