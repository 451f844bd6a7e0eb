package microvm

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"rouse/control"
	"rouse/vmm"
)

// VM is a running VMM with a guest. It dies with this process.
type VM struct {
	Dir    string // sockets, console, log
	d      driver
	api    *api
	cmd    *exec.Cmd
	exited chan struct{}
	port   uint32
}

// start runs the VMM and waits for its API.
func start(ctx context.Context, kind, program string, port uint32) (*VM, error) {
	d, err := driverOf(kind)
	if err != nil {
		return nil, err
	}
	if program == "" {
		program = kind
	}
	dir, err := os.MkdirTemp("", "rouse-"+kind+"-*") // short: a socket's path has at most 107 bytes
	if err != nil {
		return nil, err
	}
	v := &VM{Dir: dir, d: d, exited: make(chan struct{}), port: port}
	v.api = newAPI(v.path(apiSocket), d.base())
	if err := v.spawn(program, d.args(v.path(apiSocket))); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("%s: %w; install it, or name it with --vmm-program", kind, err)
	}
	if err := v.api.await(ctx, d.ready(), v.exited); err != nil {
		words, _ := os.ReadFile(v.path(consoleFile))
		v.Close()
		return nil, fmt.Errorf("%s: %w: %s", kind, err, words)
	}
	return v, nil
}

func (v *VM) path(name string) string { return filepath.Join(v.Dir, name) }

// spawn ties the VMM's life to ours: the death signal is the forking thread's, which is kept for it.
func (v *VM) spawn(program string, args []string) error {
	log, err := os.Create(v.path(consoleFile))
	if err != nil {
		return err
	}
	defer log.Close()
	v.cmd = exec.Command(program, args...)
	v.cmd.Stdout, v.cmd.Stderr, v.cmd.Dir = log, log, v.Dir
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := v.cmd.Start()
		started <- err
		if err == nil {
			_ = v.cmd.Wait() // how it ended is in its log
			close(v.exited)
		}
	}()
	return <-started
}

// Close ends the VMM and removes its folder.
func (v *VM) Close() error {
	_ = v.cmd.Process.Kill() // no harm if it has ended
	<-v.exited
	return os.RemoveAll(v.Dir)
}

// Control connects to the guest.
func (v *VM) Control(ctx context.Context) (*control.Client, error) {
	g, err := dialGuest(ctx, v.path(vsockSocket), v.port)
	if err != nil {
		return nil, err
	}
	if err := g.Sync(ctx); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

// BakeConfig says how to make a snapshot.
type BakeConfig struct {
	Kind    string
	Program string // of the VMM; found by its name if empty
	Machine Machine
	Output  string
	Port    uint32        // vsock port of the guest's control channel; VsockPort if zero
	Timeout time.Duration // of boot and readiness; a minute if zero
	Step    func(string)
}

// Bake boots a machine, waits until its services are ready, quiesces it, pauses it and writes a snapshot
// folder, complete or not at all.
func Bake(ctx context.Context, c BakeConfig) (vmm.Manifest, error) {
	if c.Port == 0 {
		c.Port = VsockPort
	}
	if c.Timeout == 0 {
		c.Timeout = time.Minute
	}
	if c.Step == nil {
		c.Step = func(string) {}
	}
	var err error
	if c.Machine, err = c.Machine.withDefaults(); err != nil {
		return vmm.Manifest{}, err
	}
	return vmm.Write(ctx, c.Output, func(dir string) (vmm.Manifest, error) { return c.bake(ctx, dir) })
}

func (c BakeConfig) bake(ctx context.Context, dir string) (m vmm.Manifest, err error) {
	c.Step("boot")
	v, err := start(ctx, c.Kind, c.Program, c.Port)
	if err != nil {
		return m, err
	}
	defer v.Close()
	c.Machine.VsockPath = v.path(vsockSocket)
	if err := v.d.boot(ctx, v.api, c.Machine); err != nil {
		return m, err
	}
	c.Step("wait for services")
	ready, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	g, err := v.Control(ready)
	if err != nil {
		return m, err
	}
	defer g.Close()
	if err := g.Do(ready, "rouse-wait", map[string]any{"states": []string{"running"}, "timeout-ms": c.Timeout.Milliseconds()}, nil); err != nil {
		return m, err
	}
	var s control.Status
	if err := g.Do(ctx, "rouse-status", nil, &s); err != nil {
		return m, err
	}
	c.Step("quiesce")
	m = vmm.Manifest{Made: time.Now().UTC(), VMM: c.Kind, MemoryMiB: c.Machine.MemoryMiB, CPUs: c.Machine.CPUs, Accel: "kvm",
		Cmdline: c.Machine.Cmdline, VMGenID: s.VMGenID, Generation: s.Generation}
	if err := g.Do(ctx, "rouse-quiesce", nil, &m.Report); err != nil {
		return m, fmt.Errorf("quiesce: %w", err)
	}
	c.Step("snapshot")
	if err := v.d.pause(ctx, v.api); err != nil {
		return m, err
	}
	return m, v.d.snapshot(ctx, v.api, dir)
}

// CloneConfig says how to start one clone.
type CloneConfig struct {
	Snapshot string
	Program  string
	Port     uint32 // as in BakeConfig
	Tap      string // "" keeps the source's
	Identity vmm.Identity
	Timeout  time.Duration // from the resume to READY; a minute if zero
	NoVerify bool
}

// Clone is a running clone.
type Clone struct {
	VM     *VM
	Status control.Status
	Report json.RawMessage
}

// StartClone loads a snapshot into a VMM of its own, gives it its network and its metadata while it is
// paused, lets it run, hands over identity, time and seed, and waits for READY.
func StartClone(ctx context.Context, c CloneConfig) (k *Clone, err error) {
	if c.Port == 0 {
		c.Port = VsockPort
	}
	if c.Timeout == 0 {
		c.Timeout = time.Minute
	}
	dir, err := filepath.Abs(c.Snapshot)
	if err != nil {
		return nil, err
	}
	m, err := vmm.ReadManifest(dir)
	if err != nil {
		return nil, err
	}
	if !c.NoVerify {
		if err := m.Verify(ctx, dir); err != nil {
			return nil, err
		}
	}
	v, err := start(ctx, m.VMM, c.Program, c.Port)
	if err != nil {
		return nil, err
	}
	k = &Clone{VM: v}
	if err := c.run(ctx, k, dir, m); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return k, nil
}

func (c CloneConfig) run(ctx context.Context, k *Clone, dir string, m vmm.Manifest) error {
	v := k.VM
	if err := v.d.load(ctx, v.api, dir, v.Dir, Override{c.Tap, v.path(vsockSocket)}); err != nil {
		return err
	}
	words := c.words()
	if c.Tap != "" {
		if err := v.d.tell(ctx, v.api, words); err != nil {
			return err
		}
	}
	if err := v.d.resume(ctx, v.api); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	g, err := v.Control(ctx)
	if err != nil {
		return err
	}
	defer g.Close()
	if err := g.Do(ctx, "rouse-resumed", words, nil); err != nil {
		return err
	}
	var done control.WaitResult
	wait := map[string]any{"states": []string{"running", "held"}, "timeout-ms": c.Timeout.Milliseconds()}
	if err := g.Do(ctx, "rouse-wait", wait, &done); err != nil {
		return err
	}
	k.Status, k.Report = done.Status, done.Report
	switch {
	case done.Status.State == "held":
		return &vmm.HeldError{Problems: done.Status.Problems, Report: done.Report}
	case done.Status.Generation == m.Generation:
		return fmt.Errorf("it runs in its source's generation %d", m.Generation)
	}
	return nil
}

// words are rouse-resumed's arguments, and what the metadata store has under "rouse".
func (c CloneConfig) words() map[string]any {
	seed, id := make([]byte, 64), make([]byte, 16)
	rand.Read(seed)
	rand.Read(id)
	return map[string]any{"seed": seed, "time-ns": time.Now().UnixNano(), "identity": c.Identity, "generation": "host-" + hex.EncodeToString(id)}
}
