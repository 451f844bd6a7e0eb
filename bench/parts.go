package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"rouse/control"
	"rouse/quiesce"
	"rouse/vmm"
)

// resumeParts takes a safe resume apart, with the guest's instructions counted: emulated, most of its time goes into translating code
// that runs once, which hardware does not have to.
func (w *web) resumeParts(ctx context.Context, r *Record) error {
	extra := w.l.counting(ctx)
	snapshot := filepath.Join(filepath.Dir(w.snapshot), "counted")
	if _, err := vmm.Bake(ctx, vmm.BakeConfig{Image: w.image, Output: snapshot, QuiesceTimeout: time.Minute,
		VM: vmm.Config{Extra: extra, Forwards: []vmm.Forward{{GuestPort: webPort}}}}); err != nil {
		return fmt.Errorf("bake: %w", err)
	}
	for range w.l.repeat(5) {
		clones, err := vmm.StartClones(ctx, vmm.CloneConfig{Snapshot: snapshot, N: 1, NoVerify: true, Extra: extra})
		if err != nil {
			return err
		}
		err = partsOf(ctx, clones[0], r)
		if err := vmm.CloseAll(clones); err != nil {
			return err
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// partsOf times the answer by the guest's clock, which stands still in none of it.
func partsOf(ctx context.Context, c *vmm.Clone, r *Record) error {
	var report quiesce.Report
	if err := json.Unmarshal(c.Report, &report); err != nil {
		return err
	}
	guest, err := c.VM.Control(ctx)
	if err != nil {
		return err
	}
	defer guest.Close()
	asked, err := guestTime(ctx, guest)
	if err != nil {
		return err
	}
	if err := answer(ctx, c.VM); err != nil {
		return err
	}
	answered, err := guestTime(ctx, guest)
	if err != nil {
		return err
	}
	add := func(name string, d time.Duration) { r.add(name, 0, "part", "ms", d.Seconds()*1000) }
	add("the VMM starts and restores", c.Restore)
	add("rouse adjusts", time.Duration(report.DurationNS))
	add("the server answers", answered.Sub(asked))
	return nil
}

func guestTime(ctx context.Context, guest *control.Client) (time.Time, error) {
	var ns int64
	err := guest.Do(ctx, "guest-get-time", nil, &ns)
	return time.Unix(0, ns), err
}
