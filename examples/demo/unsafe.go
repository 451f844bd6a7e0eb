package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"rouse/config"
	"rouse/rootfs/image"
	"rouse/vmm"
)

const guestPort = 443

// unsafe does what is usually done: boot, wait until the server answers, snapshot, clone.
func (d *demo) unsafe(ctx context.Context) ([]clone, error) {
	initrd := d.path("plain-initrd")
	if err := d.plainImage(initrd); err != nil {
		return nil, err
	}
	machine := vmm.Config{Kernel: filepath.Join(d.kernel, "vmlinuz"), Initrd: initrd, GUID: "auto",
		Cmdline:  "console=ttyS0 quiet panic=-1 plain.exec=/usr/bin/webserver ip=10.0.2.15::10.0.2.2:255.255.255.0:::off",
		Forwards: []vmm.Forward{{GuestPort: guestPort}}}
	snapshot := d.path("plain-memory")
	if err := d.plainSnapshot(ctx, machine, snapshot); err != nil {
		return nil, err
	}
	machine.Incoming = snapshot
	var clones []clone
	for range d.clones {
		c, err := plainClone(ctx, machine)
		if err != nil {
			return nil, err
		}
		clones = append(clones, c)
	}
	return clones, nil
}

func (d *demo) plainImage(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return image.Build(f, image.Spec{Init: filepath.Join(d.bin, "plaininit"), ModulesDir: filepath.Join(d.kernel, "modules"),
		Optional: config.GuestModules(), Compress: "none",
		Files: []image.File{{Path: "/usr/bin/webserver", Source: filepath.Join(d.bin, "webserver-unsafe"), Mode: 0o755}}})
}

func (d *demo) plainSnapshot(ctx context.Context, machine vmm.Config, path string) error {
	say("boot")
	vm, err := vmm.Start(ctx, machine)
	if err != nil {
		return err
	}
	defer vm.Close()
	if _, err := firstAnswer(ctx, vm); err != nil {
		return fmt.Errorf("%w; console: %s", err, vm.Console())
	}
	say("snapshot")
	return vm.Snapshot(ctx, path)
}

func plainClone(ctx context.Context, machine vmm.Config) (clone, error) {
	say("clone")
	began := time.Now()
	vm, err := vmm.Start(ctx, machine)
	if err != nil {
		return clone{}, err
	}
	defer vm.Close()
	c := clone{RestoreMS: milliseconds(time.Since(began))}
	a, err := firstAnswer(ctx, vm)
	if err != nil {
		return c, err
	}
	c.Random, c.TicketKey, c.Requests = a.Random, a.TicketKey, a.Requests
	return c, nil
}

// firstAnswer asks until the server answers.
func firstAnswer(ctx context.Context, vm *vmm.VM) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	forwards, err := vm.Forwards(ctx)
	if err != nil {
		return answer{}, err
	}
	for {
		a, err := ask(ctx, forwards[0].HostPort)
		if err == nil {
			return a, nil
		}
		select {
		case <-ctx.Done():
			return answer{}, fmt.Errorf("the server does not answer: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func say(what string) { fmt.Printf("   - %s\n", what) }

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
