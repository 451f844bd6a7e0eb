package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"rouse/quiesce"
	"rouse/vmm"
)

type bakeCommand struct {
	Image     string        `arg:"" type:"existingdir" help:"Folder made by rouse build."`
	Output    string        `short:"o" required:"" help:"Snapshot folder to write; it must not exist."`
	Memory    int           `placeholder:"MIB" help:"Memory of the guest in MiB; 256, or more if rouse build says that the image needs more."`
	CPUs      int           `name:"cpus" default:"1" help:"Processors of the guest."`
	Port      []string      `short:"p" placeholder:"[HOST:]GUEST" help:"TCP port of the guest that clones are reached at, and where the host reaches it while baking. Those that rouse build found in the image if not given."`
	Disk      []string      `sep:"none" placeholder:"FILE[:raw|qcow2][:ro]" help:"Disk of the guest. The snapshot has a copy of it; each clone writes to an overlay."`
	CPU       string        `default:"max" help:"QEMU CPU model. max is all that this host has: clones run only on hosts that have it too."`
	Accel     string        `enum:"auto,kvm,tcg" default:"auto" help:"kvm, tcg (emulation), or auto: KVM if a guest really runs under it."`
	Boot      time.Duration `default:"1m" help:"How long the services may take to become ready."`
	Timeout   time.Duration `help:"How long the drain may take; the guest's configuration if not given."`
	Leftovers string        `enum:",abort,destroy,keep" default:"" help:"What becomes of connections that still hold data then."`
	Warm      string        `placeholder:"COMMAND" help:"Shell command to run while the services are up, before the quiesce. ROUSE_PORT_<guest port> has the host's port."`
	Capture   string        `placeholder:"FILE" help:"Write the guest's traffic to a pcap file."`
	Tap       string        `placeholder:"DEVICE" help:"TAP device of the host in place of QEMU's user-mode network."`
	MAC       string        `name:"mac" placeholder:"ADDRESS" help:"Hardware address of the NIC of Firecracker or Cloud Hypervisor."`

	vmmFlags
}

// Run bakes.
func (b *bakeCommand) Run(s *session) error {
	defer s.ui.close()
	b.adoptImage()
	if b.VMM != "qemu" {
		return b.bakeMicro(s)
	}
	forwards, err := parsePorts(b.Port)
	if err != nil {
		return err
	}
	disks, err := parseDisks(b.Disk)
	if err != nil {
		return err
	}
	c := vmm.BakeConfig{Image: b.Image, Output: b.Output, BootTimeout: b.Boot, QuiesceTimeout: b.Timeout, Leftovers: b.Leftovers,
		VM:   vmm.Config{MemoryMiB: b.Memory, CPUs: b.CPUs, Forwards: forwards, Disks: disks, CPU: b.CPU, Tap: b.Tap, Accel: accelerator(b.Accel), Capture: b.Capture},
		Step: func(step string) { s.ui.step("bake", step, 6) }}
	if b.Warm != "" {
		c.Warm = func(ctx context.Context, vm *vmm.VM) error { return warm(ctx, vm, b.Warm) }
	}
	m, err := vmm.Bake(s.ctx, c)
	if err != nil {
		return err
	}
	s.ui.step("bake", "", 6)
	s.ui.close()
	var r quiesce.Report
	if err := json.Unmarshal(m.Report, &r); err != nil {
		return fmt.Errorf("report of the guest: %w", err)
	}
	return s.emit(map[string]any{"snapshot": b.Output, "manifest": m}, fmt.Sprintf("%s: %.1f MB memory, quiesced in %v (%s)",
		b.Output, float64(m.MemoryBytes())/1e6, time.Duration(r.DurationNS).Round(time.Millisecond), phases(r)))
}

// adoptImage takes what rouse build knows of the image for what was not given.
func (b *bakeCommand) adoptImage() {
	var known struct {
		Ports  []uint16 `json:"ports"`
		Memory int      `json:"memory-mib"`
	}
	if text, err := os.ReadFile(filepath.Join(b.Image, imageFile)); err == nil {
		_ = json.Unmarshal(text, &known) // an image of another maker has what it has
	}
	if b.Memory == 0 {
		b.Memory = max(256, known.Memory)
	}
	if len(b.Port) > 0 || b.VMM != "qemu" || b.Tap != "" {
		return
	}
	for _, p := range known.Ports {
		b.Port = append(b.Port, strconv.Itoa(int(p)))
	}
}

// phases is a report in one line.
func phases(r quiesce.Report) string {
	var list []string
	for _, p := range r.Phases {
		list = append(list, fmt.Sprintf("%s %.1f", p.Name, float64(p.DurationNS)/1e6))
	}
	return strings.Join(list, ", ") + " ms"
}

func accelerator(name string) string {
	if name == "auto" {
		return ""
	}
	return name
}

// parseDisks reads FILE[:FORMAT][:ro].
func parseDisks(list []string) ([]vmm.Disk, error) {
	var disks []vmm.Disk
	for _, s := range list {
		d := vmm.Disk{Format: "raw"}
		if rest, ok := strings.CutSuffix(s, ":ro"); ok {
			s, d.ReadOnly = rest, true
		}
		for _, format := range []string{"raw", "qcow2"} {
			if rest, ok := strings.CutSuffix(s, ":"+format); ok {
				s, d.Format = rest, format
			}
		}
		if _, err := os.Stat(s); err != nil {
			return nil, fmt.Errorf("--disk: %w; want FILE, FILE:qcow2 or FILE:raw:ro", err)
		}
		d.Path = s
		disks = append(disks, d)
	}
	return disks, nil
}

// parsePorts reads [HOST:]GUEST.
func parsePorts(list []string) ([]vmm.Forward, error) {
	var forwards []vmm.Forward
	for _, s := range list {
		host, guest, both := strings.Cut(s, ":")
		if !both {
			host, guest = "0", s
		}
		h, err1 := strconv.ParseUint(host, 10, 16)
		g, err2 := strconv.ParseUint(guest, 10, 16)
		if err1 != nil || err2 != nil || g == 0 {
			return nil, fmt.Errorf("--port %s: want GUEST or HOST:GUEST, ports from 1 to 65535, as in 8443:443", s)
		}
		forwards = append(forwards, vmm.Forward{HostPort: uint16(h), GuestPort: uint16(g)})
	}
	return forwards, nil
}

// warm runs the warm-up with the ports in its environment.
func warm(ctx context.Context, vm *vmm.VM, command string) error {
	forwards, err := vm.Forwards(ctx)
	if err != nil {
		return err
	}
	return runShell(ctx, command, portEnv(forwards))
}

func portEnv(forwards []vmm.Forward) []string {
	var env []string
	for _, f := range forwards {
		env = append(env, fmt.Sprintf("ROUSE_PORT_%d=%d", f.GuestPort, f.HostPort))
	}
	return env
}

func runShell(ctx context.Context, command string, env []string) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}
