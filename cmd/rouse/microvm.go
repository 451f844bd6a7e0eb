package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"rouse/vmm"
	"rouse/vmm/microvm"
)

// vmmFlags are for VMMs other than QEMU.
type vmmFlags struct {
	VMM        string `name:"vmm" enum:"qemu,firecracker,cloud-hypervisor" default:"qemu" help:"qemu, firecracker or cloud-hypervisor. The latter two need KVM, --tap for a network, and control.vsock in the guest's configuration."`
	VMMProgram string `name:"vmm-program" placeholder:"FILE" help:"Program of that VMM; found by its name if not given."`
	VsockPort  uint32 `default:"1025" help:"Vsock port of the guest's control channel, as in its configuration."`
}

// bakeMicro bakes with a VMM that has an HTTP API.
func (b *bakeCommand) bakeMicro(s *session) error {
	if len(b.Port) > 0 || b.Warm != "" || b.Capture != "" {
		return fmt.Errorf("--port, --warm and --capture are of QEMU's user-mode network; %s has a TAP device: --tap", b.VMM)
	}
	m, err := microvm.ImageMachine(b.Image)
	if err != nil {
		return err
	}
	more, err := parseDisks(b.Disk)
	if err != nil {
		return err
	}
	m.Disks = append(m.Disks, more...)
	m.MemoryMiB, m.CPUs, m.Tap, m.MAC = b.Memory, b.CPUs, b.Tap, b.MAC
	snapshot, err := microvm.Bake(s.ctx, microvm.BakeConfig{Kind: b.VMM, Program: b.VMMProgram, Machine: m, Output: b.Output, Port: b.VsockPort,
		Timeout: b.Boot, Step: func(step string) { s.ui.step("bake", step, 5) }})
	if err != nil {
		return err
	}
	s.ui.step("bake", "", 5)
	s.ui.close()
	return s.emit(map[string]any{"snapshot": b.Output, "manifest": snapshot}, b.Output)
}

// runMicro keeps clones of such a VMM until it is told to end.
func (c *cloneCommand) runMicro(s *session, m vmm.Manifest) error {
	if c.Detach || c.Exec != "" || len(c.Publish) > 0 || c.HostPort != 0 || c.Capture != "" || !c.Wait {
		return fmt.Errorf("snapshot of %s: --detach, --no-wait, --exec, --publish, --host-port and --capture are for QEMU's clones", m.VMM)
	}
	config, err := c.config(s)
	if err != nil {
		return err
	}
	clones, err := c.startMicro(s, config)
	defer func() {
		for _, k := range clones {
			if k != nil {
				k.VM.Close()
			}
		}
	}()
	if err != nil {
		return err
	}
	s.ui.close()
	for i, k := range clones {
		err := s.emit(map[string]any{"clone": i, "generation": k.Status.Generation, "vmgenid": k.Status.VMGenID, "report": k.Report},
			fmt.Sprintf("clone %d: generation %d, ready", i, k.Status.Generation))
		if err != nil {
			return err
		}
	}
	if c.Exit {
		return nil
	}
	fmt.Fprintln(os.Stderr, "running; Ctrl-C ends them")
	<-s.ctx.Done()
	return nil
}

// startMicro starts them side by side; those that did not start are nil.
func (c *cloneCommand) startMicro(s *session, config vmm.CloneConfig) ([]*microvm.Clone, error) {
	clones := make([]*microvm.Clone, c.N)
	errs := make([]error, c.N)
	var wg sync.WaitGroup
	for i := range c.N {
		one := microvm.CloneConfig{Snapshot: c.Snapshot, Program: c.VMMProgram, Port: c.VsockPort, Timeout: c.Timeout, NoVerify: !c.Verify}
		if len(config.Taps) > 0 {
			one.Tap = config.Taps[i]
		}
		if len(config.Identities) > 0 {
			one.Identity = config.Identities[i]
		}
		wg.Go(func() { clones[i], errs[i] = microvm.StartClone(s.ctx, one) })
	}
	wg.Wait()
	return clones, errors.Join(errs...)
}

// buildMachineCommand is rouse build with the configuration of a VMM beside what it made.
type buildMachineCommand struct {
	buildCommand
	VMM string `name:"vmm" enum:",firecracker,cloud-hypervisor" default:"" help:"Write FOLDER/firecracker.json (for its --config-file) or FOLDER/cloud-hypervisor.json (for vm.create) too; run the VMM in that folder."`
	Tap string `placeholder:"DEVICE" help:"TAP device in that file."`
	MAC string `name:"mac" placeholder:"ADDRESS" help:"Hardware address in that file."`
}

// Run builds, and then writes what the VMM is to be told.
func (b *buildMachineCommand) Run(s *session) error {
	if b.VMM == microvm.Firecracker {
		if err := microvm.CheckKernel(b.Kernel); err != nil {
			return err
		}
	}
	if err := b.buildCommand.Run(s); err != nil || b.VMM == "" {
		return err
	}
	m, err := microvm.RelativeMachine(b.Output)
	if err != nil {
		return err
	}
	known := bakeCommand{Image: b.Output, vmmFlags: vmmFlags{VMM: b.VMM}}
	known.adoptImage()
	m.Tap, m.MAC, m.MemoryMiB, m.VsockPath = b.Tap, b.MAC, known.Memory, "vsock.sock"
	return replaceFile(filepath.Join(b.Output, b.VMM+".json"), func(w io.Writer) error { return microvm.WriteConfig(w, b.VMM, m) })
}
