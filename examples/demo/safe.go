package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"rouse/internal/capture"
	"rouse/quiesce"
	"rouse/vmm"
)

// configuration is all that a service needs to be baked.
const configuration = `hostname = "web"

[[service]]
name = "web"
exec = ["/usr/bin/webserver"]
ready = "notify"
`

// safe does it with rouse: `rouse build`, then bake and clone through the package that `rouse bake` and
// `rouse clone` are made of, because the demo's clients have to be in the middle of something.
func (d *demo) safe(ctx context.Context, r *result) error {
	if err := d.build(ctx); err != nil {
		return err
	}
	clients := &clients{}
	defer clients.close()
	m, err := vmm.Bake(ctx, vmm.BakeConfig{Image: d.path("image"), Output: d.path("snapshot"),
		QuiesceTimeout: time.Minute, // a machine under load may be that slow
		VM:             vmm.Config{Forwards: []vmm.Forward{{GuestPort: guestPort}}}, Step: say,
		Warm: clients.begin, Quiesced: clients.finish})
	if err != nil {
		return err
	}
	r.Transfer, r.Quiesce, r.Accel = clients.transfer, m.Report, m.Accel
	fmt.Printf("   - a client was in the middle of a transfer when the quiesce began: %d of %d bytes; it got all %d, each as sent, before the snapshot\n",
		r.Transfer.AtQuiesce, r.Transfer.Bytes, r.Transfer.Received)
	clones, err := vmm.StartClones(ctx, vmm.CloneConfig{Snapshot: d.path("snapshot"), N: d.clones, Capture: d.dir,
		Step: func(i int, what string) { say(fmt.Sprintf("clone %d: %s", i, what)) }})
	if err != nil {
		return err
	}
	defer func() { _ = vmm.CloseAll(clones) }() // a second time after the captures are complete; harmless
	for _, k := range clones {
		c, err := inspect(ctx, k)
		if err != nil {
			return fmt.Errorf("clone %d: %w", k.Index, err)
		}
		r.Safe = append(r.Safe, c)
	}
	if err := vmm.CloseAll(clones); err != nil {
		return err
	}
	return countEarly(clones, r.Safe)
}

func (d *demo) build(ctx context.Context) error {
	file := d.path("rouse.toml")
	if err := os.WriteFile(file, []byte(configuration), 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, "rouse"), "build", filepath.Join(d.bin, "webserver"), "-c", file,
		"-o", d.path("image"), "--kernel", filepath.Join(d.kernel, "vmlinuz"), "--modules", filepath.Join(d.kernel, "modules"))
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	say("rouse build")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("rouse build: %w\n%s", err, text.String())
	}
	return nil
}

// inspect asks a clone that is READY.
func inspect(ctx context.Context, k *vmm.Clone) (clone, error) {
	c := clone{VMGenID: k.VMGenID, Generation: k.Status.Generation, RestoreMS: milliseconds(k.Restore), ReadyMS: milliseconds(k.Ready)}
	var r quiesce.Report
	if err := json.Unmarshal(k.Report, &r); err != nil {
		return c, err
	}
	c.Severed = r.Severed
	a, err := ask(ctx, k.Forwards[0].HostPort)
	if err != nil {
		return c, err
	}
	c.Random, c.TicketKey, c.Requests, c.Acknowledged = a.Random, a.TicketKey, a.Requests, a.Generation
	return c, nil
}

// countEarly reads the captures, which are complete now, and counts what left before the gate opened.
func countEarly(clones []*vmm.Clone, rows []clone) error {
	for i, k := range clones {
		frames, err := capture.Read(k.Capture)
		if err != nil {
			return err
		}
		lead, err := leadOf(k.Report)
		if err != nil {
			return err
		}
		early, err := capture.BeforeRelease(frames, capture.GuestMAC, lead)
		if err != nil {
			return fmt.Errorf("clone %d: %w", i, err)
		}
		rows[i].Early = len(early)
		for _, f := range early {
			if f.IsIP() {
				rows[i].EarlyIP++
			}
		}
	}
	return nil
}

// leadOf is how long before its announcement a clone opened its gate, by its own report.
func leadOf(report json.RawMessage) (time.Duration, error) {
	var r struct {
		Phases []struct {
			Name   string `json:"name"`
			Detail struct {
				Opened    int64 `json:"opened-ns"`
				Announced int64 `json:"announced-ns"`
			} `json:"detail"`
		} `json:"phases"`
	}
	// The details of other phases have other shapes, which are of no interest and must not be an error.
	if err := json.Unmarshal(report, &r); err != nil && len(r.Phases) == 0 {
		return 0, err
	}
	for _, p := range r.Phases {
		if p.Name == "open" && p.Detail.Opened != 0 {
			return time.Duration(p.Detail.Announced - p.Detail.Opened), nil
		}
	}
	return 0, fmt.Errorf("the report has no opening: %s", report)
}
