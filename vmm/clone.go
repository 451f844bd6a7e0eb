package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"rouse/control"
)

// CloneConfig says how to start clones of a snapshot.
type CloneConfig struct {
	Snapshot string // folder made by Bake
	N        int    // how many; 1 if zero
	// HostPort is where the first clone's first guest port is reached; clone i has HostPort + i. Zero
	// takes any free port. More guest ports follow in blocks of N.
	HostPort uint16
	// Publish replaces the ports that the snapshot names: clone i is reached at HostPort + i of each, or
	// at any free port where HostPort is zero.
	Publish []Forward
	// Taps are TAP devices of the host, one for each clone, in place of the user-mode network.
	Taps []string
	// Identities are handed to the clones before they run, one each; none keeps their source's. A clone that is
	// given one is given the host's time and a seed for its random pool too.
	Identities []Identity
	// Dirs are the clones' run folders; temporary ones if empty.
	Dirs []string
	// Capture is a folder for pcap files of each clone's traffic, taken outside of the guest; "" is none.
	Capture string
	// Timeout bounds the time from the resume to READY; a minute if zero.
	Timeout time.Duration
	// Paused leaves the guests stopped after the restore; NoWait lets them run. Neither waits for them.
	Paused, NoWait bool
	// Detach lets the clones outlive this process, if they are not closed.
	Detach bool
	// NoVerify takes the snapshot's files on trust, but for their sizes.
	NoVerify bool
	// Extra are more QEMU arguments, as they are; what of the machine they change has to be as it was for the source.
	Extra []string
	// Started is told of each VM before it has loaded the snapshot, from several goroutines; an error ends it.
	Started func(clone int, vm *VM) error
	// Step is told of progress: which clone, and what it does.
	Step func(clone int, what string)
}

// Clone is one running copy.
type Clone struct {
	VM       *VM
	Index    int
	VMGenID  string
	Forwards []Forward
	Capture  string // its pcap file, or ""
	// Status and Report are the guest's at READY; Report tells of the adjust.
	Status control.Status
	Report json.RawMessage
	// Restore is from the start of QEMU until the guest ran its first instruction, Ready from there
	// until READY was heard.
	Restore, Ready time.Duration
}

// HeldError is a clone that stays shut.
type HeldError struct {
	Index    int
	Problems []string
	Report   json.RawMessage
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("clone %d is held, its gate stays shut: %v", e.Index, e.Problems)
}

// StartClones starts clones side by side, each with a VM generation id of its own, and waits until each
// is READY. On an error all of them are ended.
func StartClones(ctx context.Context, c CloneConfig) (clones []*Clone, err error) {
	def(&c.N, 1)
	def(&c.Timeout, time.Minute)
	if c.Step == nil {
		c.Step = func(int, string) {}
	}
	m, err := c.manifest(ctx)
	if err != nil {
		return nil, err
	}
	clones = make([]*Clone, c.N)
	errs := make([]error, c.N)
	var wg sync.WaitGroup
	for i := range c.N {
		wg.Go(func() { clones[i], errs[i] = c.start(ctx, m, i) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, CloseAll(clones))
	}
	return clones, nil
}

// manifest reads and checks the snapshot, and the wishes against it.
func (c CloneConfig) manifest(ctx context.Context) (Manifest, error) {
	m, err := ReadManifest(c.Snapshot)
	if err != nil {
		return m, err
	}
	if m.VMM != "" {
		return m, fmt.Errorf("snapshot of %s, not of QEMU", m.VMM)
	}
	for what, n := range map[string]int{"TAP devices": len(c.Taps), "identities": len(c.Identities), "run folders": len(c.Dirs)} {
		if n != 0 && n != c.N {
			return m, fmt.Errorf("%d clones and %d %s; give one for each clone", c.N, n, what)
		}
	}
	if len(c.Identities) > 0 && (c.Paused || c.NoWait) {
		return m, errors.New("a clone that nobody waits for cannot be asked whether it took its identity; wait for it, or give none")
	}
	if m.Accel == "kvm" {
		if err := ProbeKVM(ctx); err != nil {
			return m, fmt.Errorf("snapshot of a machine under KVM, which does not work here (%w); bake it again with --accel tcg", err)
		}
	}
	if c.NoVerify {
		return m, nil
	}
	c.Step(0, "verify the snapshot")
	return m, m.Verify(ctx, c.Snapshot)
}

// CloseAll ends clones; those that are nil have not begun.
func CloseAll(clones []*Clone) error {
	var errs []error
	for _, c := range clones {
		if c != nil {
			errs = append(errs, c.VM.Close())
		}
	}
	return errors.Join(errs...)
}

// start starts clone i.
func (c CloneConfig) start(ctx context.Context, m Manifest, i int) (*Clone, error) {
	k := &Clone{Index: i}
	if c.Capture != "" {
		k.Capture = filepath.Join(c.Capture, fmt.Sprintf("clone-%d.pcap", i))
	}
	began := time.Now()
	c.Step(i, "restore")
	vm, err := Start(ctx, c.machine(m, i, k.Capture))
	if err != nil {
		return nil, fmt.Errorf("clone %d: %w", i, err)
	}
	k.VM = vm
	if err := c.arrive(ctx, m, k, began); err != nil {
		return nil, errors.Join(fmt.Errorf("clone %d: %w", i, err), vm.Close())
	}
	c.Step(i, "ready")
	return k, nil
}

// machine is clone i's: all as the snapshot was, but for the generation, the network behind the NIC, the
// disks' overlays and the capture. It is restored and does not yet run.
func (c CloneConfig) machine(m Manifest, i int, capture string) Config {
	v := Config{Name: fmt.Sprintf("clone-%d", i), Kernel: filepath.Join(c.Snapshot, KernelFile),
		Initrd: filepath.Join(c.Snapshot, InitrdFile), Cmdline: m.Cmdline, MemoryMiB: m.MemoryMiB, CPUs: m.CPUs,
		CPU: m.CPU, Accel: m.Accel, Machine: m.Machine, GUID: "auto", Capture: capture,
		Incoming: filepath.Join(c.Snapshot, StateFile), Paused: true, Detach: c.Detach, Extra: c.Extra}
	if len(c.Dirs) > 0 {
		v.Dir = c.Dirs[i]
	}
	for _, d := range m.Disks {
		v.Disks = append(v.Disks, Disk{filepath.Join(c.Snapshot, d.Path), d.Format, d.ReadOnly, !d.ReadOnly})
	}
	if len(c.Taps) > 0 {
		v.Tap = c.Taps[i]
	} else {
		v.Forwards = c.forwards(m, i)
	}
	v.check = func(ctx context.Context, vm *VM) error {
		if err := m.checkHost(ctx, vm); err != nil || c.Started == nil {
			return err
		}
		return c.Started(i, vm)
	}
	return v
}

// forwards are clone i's.
func (c CloneConfig) forwards(m Manifest, i int) []Forward {
	all := append([]Forward(nil), c.Publish...)
	if len(all) == 0 {
		for p, port := range m.Ports {
			f := Forward{GuestPort: port}
			if c.HostPort != 0 {
				f.HostPort = c.HostPort + uint16(p*c.N)
			}
			all = append(all, f)
		}
	}
	for j := range all {
		if all[j].HostPort != 0 {
			all[j].HostPort += uint16(i)
		}
	}
	return all
}

// arrive lets the clone run, waits for READY and gathers what the clone says of itself.
func (c CloneConfig) arrive(ctx context.Context, m Manifest, k *Clone, began time.Time) (err error) {
	if k.VM.c.Tap == "" {
		if k.Forwards, err = k.VM.Forwards(ctx); err != nil {
			return err
		}
	}
	if c.Paused {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	c.Step(k.Index, "adjust")
	running, guest, err := c.run(ctx, k)
	k.Restore = running.Sub(began)
	if err != nil || c.NoWait {
		return err
	}
	defer guest.Close()
	var done control.WaitResult
	wait := map[string]any{"states": []string{"running", "held"}, "timeout-ms": c.Timeout.Milliseconds()}
	if err := guest.Do(ctx, "rouse-wait", wait, &done); err != nil {
		return err
	}
	k.Ready = time.Since(running)
	k.Status, k.Report, k.VMGenID = done.Status, done.Report, done.Status.VMGenID
	return c.judge(m, k)
}

// run lets the guest go on, with its identity under way if it is to have one: the words wait in the serial port
// while the guest is stopped, and are there when it looks for the first time.
func (c CloneConfig) run(ctx context.Context, k *Clone) (running time.Time, guest *control.Client, err error) {
	if len(c.Identities) == 0 {
		running = time.Now()
		if err := k.VM.Cont(ctx); err != nil || c.NoWait {
			return running, nil, err
		}
		guest, err = k.VM.Control(ctx)
		return running, guest, err
	}
	guest, err = k.VM.dialControl(ctx)
	if err != nil {
		return time.Now(), nil, err
	}
	taken := make(chan error, 1)
	words := handOver(c.Identities[k.Index])
	go func() { taken <- guest.Do(ctx, "rouse-resumed", words, nil) }()
	running = time.Now()
	if err = k.VM.Cont(ctx); err == nil {
		err = <-taken
	}
	if err != nil {
		guest.Close()
	}
	return running, guest, err
}

// judge says whether the clone may be shown to anybody.
func (c CloneConfig) judge(m Manifest, k *Clone) error {
	if k.Status.State == "held" {
		return &HeldError{k.Index, k.Status.Problems, k.Report}
	}
	if k.VMGenID == m.VMGenID || k.Status.Generation == m.Generation {
		return fmt.Errorf("it runs in its source's generation (%s, %d); was QEMU given another VM generation id?", m.VMGenID, m.Generation)
	}
	if len(c.Identities) > 0 {
		return c.Identities[k.Index].taken(k.Report)
	}
	return nil
}
