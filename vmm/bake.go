package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"rouse/control"
)

// BakeConfig says how to make a snapshot of a booted image.
type BakeConfig struct {
	Image  string // folder with KernelFile, InitrdFile and CmdlineFile, made by rouse build
	Output string // snapshot folder; it must not exist
	// VM is the machine; kernel, initrd, command line, VM generation id and run folder are filled in.
	VM Config
	// BootTimeout bounds the time until all services are ready; a minute if zero.
	BootTimeout time.Duration
	// QuiesceTimeout and Leftovers override the guest's configuration if set.
	QuiesceTimeout time.Duration
	Leftovers      string
	// Warm runs while the services are up and before the quiesce: to fill caches, or to let work begin.
	Warm func(context.Context, *VM) error
	// Quiesced runs between the quiesce and the snapshot: the guest is at rest, its source still runs.
	Quiesced func(context.Context, *VM) error
	// Step is told what happens next.
	Step func(string)
}

// guestAddress is what QEMU's user-mode network gives its first guest, written as the kernel's ip=
// parameter: client::gateway:netmask:::off.
const guestAddress = "ip=10.0.2.15::10.0.2.2:255.255.255.0:::off"

// cmdlineWords are appended to every image's command line: a console that Config writes to a file, and no
// wait before the reboot of a kernel that panicked.
const cmdlineWords = "console=ttyS0 panic=-1"

// NotReadyError is a guest whose services did not come up.
type NotReadyError struct {
	Problems []string
	Console  string // the last lines
}

func (e *NotReadyError) Error() string {
	s := "the guest did not become ready"
	if len(e.Problems) > 0 {
		s += ": " + strings.Join(e.Problems, "; ")
	}
	if e.Console != "" {
		s += "\nlast lines of its console:\n" + e.Console
	}
	return s
}

// Bake boots an image, waits until its services are ready, quiesces it and writes a snapshot folder,
// complete or not at all. The guest has ended when it returns.
func Bake(ctx context.Context, c BakeConfig) (m Manifest, err error) {
	def(&c.BootTimeout, time.Minute)
	if c.Step == nil {
		c.Step = func(string) {}
	}
	if _, err := os.Lstat(c.Output); err == nil {
		return m, fmt.Errorf("%s: exists; choose another folder or remove it", c.Output)
	}
	work, err := newWorkshop(c.Output)
	if err != nil {
		return m, err
	}
	defer work.close()
	tmp := work.dir
	if err := c.adopt(tmp); err != nil {
		return m, err
	}
	c.Step("boot")
	vm, err := Start(ctx, c.VM)
	if err != nil {
		return m, err
	}
	defer vm.Close()
	if m, err = c.bake(ctx, vm, tmp); err != nil {
		return m, err
	}
	vm.Close() // its run folder is in the snapshot's and goes first
	return m, work.publish(c.Output)
}

// adopt takes the image's files into the snapshot folder and points the machine at them.
func (c *BakeConfig) adopt(dir string) error {
	for _, name := range []string{KernelFile, InitrdFile, CmdlineFile} {
		err := linkOrCopy(filepath.Join(c.Image, name), filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("image %s: no %s; is it a folder made by rouse build?", c.Image, name)
		}
		if err != nil {
			return err
		}
	}
	words, err := os.ReadFile(filepath.Join(dir, CmdlineFile))
	if err != nil {
		return err
	}
	c.VM.Kernel, c.VM.Initrd = filepath.Join(dir, KernelFile), filepath.Join(dir, InitrdFile)
	c.VM.Cmdline = strings.TrimSpace(string(words)) + " " + cmdlineWords
	if !strings.Contains(" "+c.VM.Cmdline, " ip=") {
		c.VM.Cmdline += " " + guestAddress
	}
	c.VM.GUID, c.VM.Dir = "auto", filepath.Join(dir, runFolder)
	c.VM.hub = true // of use only until the snapshot
	// Clones then map one copy of the memory and pay for what they change.
	c.VM.MapMemory = true
	return c.adoptDisks(dir)
}

// DisksFile of an image folder lists its disks, as a JSON array of Disk with paths relative to the folder.
const DisksFile = "disks.json"

// adoptDisks copies the disks, the image's first, into the snapshot: the guest writes to them while it
// boots, and clones begin with what it wrote.
func (c *BakeConfig) adoptDisks(dir string) error {
	disks, err := imageDisks(c.Image)
	if err != nil {
		return err
	}
	c.VM.Disks = append(disks, c.VM.Disks...)
	for i := range c.VM.Disks {
		d := &c.VM.Disks[i]
		to := filepath.Join(dir, fmt.Sprintf("disk%d", i))
		if err := d.adopt(to); err != nil {
			return fmt.Errorf("disk %s: %w", d.Path, err)
		}
		d.Path = to
	}
	return nil
}

func imageDisks(image string) ([]Disk, error) {
	text, err := os.ReadFile(filepath.Join(image, DisksFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var disks []Disk
	if err == nil {
		err = json.Unmarshal(text, &disks)
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: %s: %w", image, DisksFile, err)
	}
	for i := range disks {
		disks[i].Path = filepath.Join(image, disks[i].Path)
	}
	return disks, nil
}

// adopt copies a disk; one that nobody writes to may be the same file.
func (d Disk) adopt(to string) error {
	if err := d.standsAlone(); err != nil {
		return err
	}
	if d.ReadOnly {
		return linkOrCopy(d.Path, to)
	}
	return copySparse(d.Path, to)
}

func (c *BakeConfig) bake(ctx context.Context, vm *VM, dir string) (Manifest, error) {
	guest, err := c.ready(ctx, vm)
	if err != nil {
		return Manifest{}, err
	}
	defer guest.Close()
	if c.Warm != nil {
		c.Step("warm up")
		if err := c.Warm(ctx, vm); err != nil {
			return Manifest{}, fmt.Errorf("warm-up: %w", err)
		}
	}
	c.Step("quiesce")
	m, err := c.describe(ctx, vm, guest)
	if err != nil {
		return m, err
	}
	if m.Report, err = c.quiesce(ctx, guest); err != nil {
		return m, err
	}
	c.Step("snapshot")
	if err := c.snapshot(ctx, vm, dir); err != nil {
		return m, err
	}
	c.Step("digest")
	if err := m.digestAll(ctx, dir, c.files()); err != nil {
		return m, err
	}
	return m, m.write(dir)
}

// snapshot writes the machine of a guest at rest.
func (c *BakeConfig) snapshot(ctx context.Context, vm *VM, dir string) error {
	// What the guest has sent and QEMU not yet passed on would end with QEMU.
	if err := vm.flushUserNetwork(ctx); err != nil {
		return err
	}
	if c.Quiesced != nil {
		if err := c.Quiesced(ctx, vm); err != nil {
			return err
		}
	}
	if err := vm.dropUserNetwork(ctx); err != nil {
		return err
	}
	return vm.Snapshot(ctx, filepath.Join(dir, StateFile))
}

// files are the snapshot's but for the manifest.
func (c *BakeConfig) files() []string {
	names := []string{KernelFile, InitrdFile, CmdlineFile, StateFile, StateFile + memorySuffix}
	for _, d := range c.VM.Disks {
		names = append(names, filepath.Base(d.Path))
	}
	return names
}

// ready waits until the guest runs with all services up. A guest that says why it is not is not waited
// for any longer.
func (c *BakeConfig) ready(ctx context.Context, vm *VM) (*control.Client, error) {
	c.Step("wait for services")
	ctx, cancel := context.WithTimeout(ctx, c.BootTimeout)
	defer cancel()
	guest, err := vm.Control(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, &NotReadyError{Console: tail(vm.Console(), 15)})
	}
	for {
		var done control.WaitResult
		wait := map[string]any{"states": []string{"running"}, "timeout-ms": 500}
		err := guest.Do(ctx, "rouse-wait", wait, &done)
		if err == nil {
			return guest, nil
		}
		var s control.Status
		if e := guest.Do(ctx, "rouse-status", nil, &s); e != nil {
			guest.Close()
			return nil, fmt.Errorf("%w: %w", e, &NotReadyError{Console: tail(vm.Console(), 15)})
		}
		if !errors.Is(err, control.ErrTimeout) || servicesFailed(s) || ctx.Err() != nil {
			guest.Close()
			return nil, &NotReadyError{Problems: s.Problems, Console: tail(vm.Console(), 15)}
		}
	}
}

func servicesFailed(s control.Status) bool {
	for _, p := range s.Problems {
		if strings.HasPrefix(p, "services:") {
			return true
		}
	}
	return false
}

func (c *BakeConfig) quiesce(ctx context.Context, guest *control.Client) (json.RawMessage, error) {
	args := map[string]any{}
	if c.QuiesceTimeout > 0 {
		args["timeout-ms"] = c.QuiesceTimeout.Milliseconds()
	}
	if c.Leftovers != "" {
		args["leftovers"] = c.Leftovers
	}
	var report json.RawMessage
	if err := guest.Do(ctx, "rouse-quiesce", args, &report); err != nil {
		return nil, fmt.Errorf("quiesce: %w", err)
	}
	return report, nil
}

// describe fills in what the machine knows of itself.
func (c *BakeConfig) describe(ctx context.Context, vm *VM, guest *control.Client) (Manifest, error) {
	qemu, machine, err := vm.identify(ctx)
	if err != nil {
		return Manifest{}, err
	}
	var s control.Status
	if err := guest.Do(ctx, "rouse-status", nil, &s); err != nil {
		return Manifest{}, err
	}
	m := Manifest{Version: manifestVersion, Made: time.Now().UTC(), QEMU: qemu, Machine: machine, CPU: vm.c.CPU,
		Accel: vm.c.Accel, MemoryMiB: vm.c.MemoryMiB, CPUs: vm.c.CPUs, Cmdline: vm.c.Cmdline,
		VMGenID: s.VMGenID, Generation: s.Generation}
	for _, f := range vm.c.Forwards {
		m.Ports = append(m.Ports, f.GuestPort)
	}
	for _, d := range c.VM.Disks {
		m.Disks = append(m.Disks, Disk{Path: filepath.Base(d.Path), Format: d.Format, ReadOnly: d.ReadOnly})
	}
	m.CPUFeatures, err = vm.cpuFeatures(ctx)
	return m, err
}

// tail is the end of a text file, for errors.
func tail(path string, lines int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(text), "\r", "")), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
