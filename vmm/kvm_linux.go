package vmm

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// probeKernel is a multiboot kernel of 256 bytes that goes through all CPU modes and leaves by the debug
// exit port. Source and how it is built: kvmprobe/probe.S.
//
//go:embed kvmprobe/probe.bin
var probeKernel []byte

// probeStatus is QEMU's exit status when the probe has written 42 to the debug exit port:
// (value << 1) | 1, hw/misc/debugexit.c.
const probeStatus = 42<<1 | 1

// probeTime is far above the 50 ms that a probe takes where KVM works.
const probeTime = 15 * time.Second

var kvm struct {
	sync.Mutex
	probed bool
	err    error
}

// ProbeKVM is nil if a guest really runs under KVM with the machine, CPU and devices that Start uses. That
// /dev/kvm opens says little: nested KVM that is only emulated opens it too, and then QEMU aborts on an MSR
// or the guest ends in an internal error. The result is kept for the life of the process, unless ctx ended.
func ProbeKVM(ctx context.Context) error {
	kvm.Lock()
	defer kvm.Unlock()
	if kvm.probed {
		return kvm.err
	}
	err := probe(ctx, "kvm")
	if ctx.Err() == nil {
		kvm.probed, kvm.err = true, err
	}
	return err
}

// probe boots the probe kernel with an accelerator.
func probe(ctx context.Context, accel string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	dir, err := os.MkdirTemp("", "rouse-probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	kernel := filepath.Join(dir, "kernel")
	if err := os.WriteFile(kernel, probeKernel, 0o600); err != nil {
		return err
	}
	// Paused, so that the monitor is there before the guest can end QEMU.
	vm, err := Start(ctx, Config{
		Name: "probe", Dir: dir, Kernel: kernel, Accel: accel, GUID: "auto", Paused: true,
		Extra: []string{"-device", "isa-debug-exit,iobase=0xf4,iosize=4"},
	})
	if err != nil {
		return fmt.Errorf("probe %s: %w", accel, err)
	}
	defer vm.Close()
	if err := vm.runProbe(ctx); err != nil {
		return fmt.Errorf("probe %s: %w", accel, err)
	}
	return nil
}

// runProbe lets the probe run until it exits, is stopped by an internal error, or makes no progress.
func (vm *VM) runProbe(ctx context.Context) error {
	if err := vm.Cont(ctx); err != nil && !vm.gone() {
		return vm.blame(err)
	}
	for {
		vm.mu.Lock()
		stopped, changed := vm.stopped, vm.changed
		vm.mu.Unlock()
		if stopped {
			return errors.New("the guest was stopped: " + lastWords(vm.path(qemuLog)))
		}
		select {
		case <-vm.exited:
			return vm.probeResult()
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("no sign of life: %w", ctx.Err())
		}
	}
}

func (vm *VM) probeResult() error {
	var exit *exec.ExitError
	if errors.As(vm.waitErr, &exit) && exit.ExitCode() == probeStatus {
		return nil
	}
	return fmt.Errorf("QEMU: %v: %s", vm.waitErr, lastWords(vm.path(qemuLog)))
}
