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
	// Capture is a folder for pcap files of each clone's traffic, taken outside of the guest; "" is none.
	Capture string
	// Timeout bounds the time from the resume to READY; a minute if zero.
	Timeout time.Duration
	// Paused leaves the guests stopped after the restore, without waiting for them.
	Paused bool
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
	m, err := ReadManifest(c.Snapshot)
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
	running := time.Now()
	k.VM, k.Restore = vm, running.Sub(began)
	if err := c.arrive(ctx, m, k, running); err != nil {
		return nil, errors.Join(fmt.Errorf("clone %d: %w", i, err), vm.Close())
	}
	c.Step(i, "ready")
	return k, nil
}

// machine is clone i's: all as the snapshot was, but for the generation, the ports and the capture.
func (c CloneConfig) machine(m Manifest, i int, capture string) Config {
	v := Config{Name: fmt.Sprintf("clone-%d", i), Kernel: filepath.Join(c.Snapshot, KernelFile),
		Initrd: filepath.Join(c.Snapshot, InitrdFile), Cmdline: m.Cmdline, MemoryMiB: m.MemoryMiB, CPUs: m.CPUs,
		CPU: m.CPU, Accel: m.Accel, Machine: m.Machine, GUID: "auto", Capture: capture,
		Incoming: filepath.Join(c.Snapshot, StateFile), Paused: c.Paused}
	for p, port := range m.Ports {
		f := Forward{GuestPort: port}
		if c.HostPort != 0 {
			f.HostPort = c.HostPort + uint16(p*c.N+i)
		}
		v.Forwards = append(v.Forwards, f)
	}
	return v
}

// arrive waits for READY and gathers what the clone says of itself.
func (c CloneConfig) arrive(ctx context.Context, m Manifest, k *Clone, running time.Time) (err error) {
	if err := m.checkHost(ctx, k.VM); err != nil {
		return err
	}
	if k.Forwards, err = k.VM.Forwards(ctx); err != nil || c.Paused {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	c.Step(k.Index, "adjust")
	guest, err := k.VM.Control(ctx)
	if err != nil {
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
	if done.Status.State == "held" {
		return &HeldError{k.Index, done.Status.Problems, done.Report}
	}
	if k.VMGenID == m.VMGenID || k.Status.Generation == m.Generation {
		return fmt.Errorf("it runs in its source's generation (%s, %d); was QEMU given another VM generation id?", m.VMGenID, m.Generation)
	}
	return nil
}
