package microvm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rouse/vmm"
)

// TestMain is the fake VMM too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "--api-") {
		fmt.Fprintln(os.Stderr, fakeMain(os.Args[1:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func machine(t *testing.T) Machine {
	t.Helper()
	dir := t.TempDir()
	kernel := filepath.Join(dir, "vmlinux")
	if err := os.WriteFile(kernel, []byte("\x7fELF and so on"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Machine{Kernel: kernel, Initrd: kernel, Cmdline: "quiet", Tap: "tap0", MAC: "02:00:00:00:00:01",
		Disks: []vmm.Disk{{Path: "/disk", Format: "raw", ReadOnly: true}}, Console: filepath.Join(dir, "console")}
}

// TestFlow bakes and clones through every request, against a server that takes only what the vendor's
// description has.
func TestFlow(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{Firecracker, CloudHypervisor} {
		t.Run(kind, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			t.Setenv("FAKE_LOG", log)
			output := filepath.Join(t.TempDir(), "snapshot")
			m, err := Bake(t.Context(), BakeConfig{Kind: kind, Program: self, Machine: machine(t), Output: output, Timeout: time.Minute})
			if err != nil {
				t.Fatalf("%v\n%s", err, read(log))
			}
			if m.VMM != kind || !strings.Contains(string(m.Report), "quiesce") || len(m.Files) < 2 {
				t.Errorf("%+v", m)
			}
			for i := range 2 {
				k, err := StartClone(t.Context(), CloneConfig{Snapshot: output, Program: self, Tap: fmt.Sprint("tap", i+1), Identity: vmm.Identity{Hostname: "a"}, Timeout: time.Minute})
				if err != nil {
					t.Fatalf("%v\n%s", err, read(log))
				}
				if k.Status.Generation != 1 {
					t.Errorf("%+v", k.Status)
				}
				dir := k.VM.Dir
				if err := k.VM.Close(); err != nil {
					t.Error(err)
				}
				if _, err := os.Stat(dir); err == nil {
					t.Error("its folder is left")
				}
			}
			if text := read(log); strings.Count(text, ": <nil>") != strings.Count(text, "\n") {
				t.Errorf("refused requests:\n%s", text)
			}
			if _, err := vmm.StartClones(t.Context(), vmm.CloneConfig{Snapshot: output}); err == nil || !strings.Contains(err.Error(), "snapshot of "+kind) {
				t.Errorf("QEMU took it: %v", err)
			}
			t.Setenv("FAKE_DEAF", "1")
			if _, err := StartClone(t.Context(), CloneConfig{Snapshot: output, Program: self, Timeout: 20 * time.Second}); err == nil || !strings.Contains(err.Error(), "source's generation") {
				t.Errorf("a clone that does not know that it is one: %v", err)
			}
		})
	}
}

func read(path string) string {
	text, _ := os.ReadFile(path)
	return string(text)
}

// TestFakeIsStrict: the check would notice a wrong name, type, value or order.
func TestFakeIsStrict(t *testing.T) {
	s, err := readSchema("firecracker.txt")
	if err != nil {
		t.Fatal(err)
	}
	for body, text := range map[string]string{
		"Vm":                   `{"state": "paused"}`,
		"BootSource":           `{"boot_args": "quiet"}`,
		"Drive":                `{"drive_id": "a", "is_root_device": "yes"}`,
		"MachineConfiguration": `{"vcpu_count": 1, "mem_size_mib": 1, "memory": 5}`,
		"SnapshotLoadParams":   `{"snapshot_path": "/x", "network_overrides": [{"iface_id": "eth0"}]}`,
	} {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		if err := s.check(body, v); err == nil {
			t.Errorf("%s %s was taken", body, text)
		}
	}
	if _, ok := s.route("PUT", "/vm"); ok {
		t.Error("PUT /vm is a request")
	}
	f := &fake{schema: s}
	for _, step := range []string{"PUT /snapshot/create", "PATCH /vm"} {
		if err := f.act(step, map[string]any{"snapshot_path": "/x", "mem_file_path": "/y", "state": "Resumed"}); err == nil {
			t.Errorf("%s on a fresh machine was taken", step)
		}
	}
}

// TestWriteConfig checks the file of rouse build --vmm firecracker against the description of the
// machine's whole configuration.
func TestWriteConfig(t *testing.T) {
	m := machine(t)
	m.VsockPath = "/v"
	var b bytes.Buffer
	if err := WriteConfig(&b, Firecracker, m); err != nil {
		t.Fatal(err)
	}
	s, err := readSchema("firecracker.txt")
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(b.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	if err := s.check("FullVmConfiguration", v); err != nil {
		t.Errorf("%v\n%s", err, b.String())
	}
	// The manual's example is held to the same.
	text, err := os.ReadFile("../../docs/fleet.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(text), "```json\n")
	example, _, _ = strings.Cut(example, "```")
	if err := json.Unmarshal([]byte(example), &v); err != nil {
		t.Fatal(err)
	}
	if err := s.check("FullVmConfiguration", v); err != nil {
		t.Errorf("docs/fleet.md: %v", err)
	}
	for name, change := range map[string]func(*Machine){
		"no kernel": func(m *Machine) { m.Kernel = "" },
		"qcow2":     func(m *Machine) { m.Disks[0].Format = "qcow2" },
		"writable":  func(m *Machine) { m.Disks[0].ReadOnly = false },
	} {
		m := machine(t)
		change(&m)
		if err := WriteConfig(io.Discard, Firecracker, m); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestCheckKernel(t *testing.T) {
	kernel := machine(t).Kernel
	if err := CheckKernel(kernel); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(kernel, []byte("MZ bzImage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CheckKernel(kernel); err == nil || !strings.Contains(err.Error(), "extract-vmlinux") {
		t.Errorf("%v", err)
	}
	if err := WriteConfig(io.Discard, "qemu", machine(t)); err == nil {
		t.Error("qemu has such a configuration")
	}
}

func TestStartErrors(t *testing.T) {
	for name, c := range map[string]BakeConfig{
		"kind":    {Kind: "qemu"},
		"program": {Kind: Firecracker, Program: "/nowhere/firecracker"},
		"ends":    {Kind: Firecracker, Program: "/bin/false"},
	} {
		parent := t.TempDir()
		c.Machine, c.Output = machine(t), filepath.Join(parent, "s")
		if _, err := Bake(t.Context(), c); err == nil {
			t.Errorf("%s: baked", name)
		}
		if left, _ := os.ReadDir(parent); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// A guest that never listens: the caller's patience ends it, and the cure is named.
	ctx, cancel := context.WithCancel(t.Context())
	_, err = Bake(ctx, BakeConfig{Kind: Firecracker, Program: self, Machine: machine(t), Output: filepath.Join(t.TempDir(), "s"), Port: 7,
		Step: func(step string) {
			if step == "wait for services" {
				cancel()
			}
		}})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "control.vsock = 7") {
		t.Errorf("%v", err)
	}
}

func TestReadOK(t *testing.T) {
	r := strings.NewReader("OK 5\nguest")
	if err := readOK(r); err != nil {
		t.Error(err)
	}
	if rest, _ := io.ReadAll(r); string(rest) != "guest" {
		t.Errorf("rest %q", rest)
	}
	for _, bad := range []string{"", "OK", "NO\n", strings.Repeat("x", 100)} {
		if err := readOK(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func FuzzRewrite(f *testing.F) {
	f.Add([]byte(`{"vsock":{"socket":"a"},"net":[{"id":"eth0","tap":"t"}]}`))
	f.Add([]byte(`{"vsock":5,"net":[5]}`))
	f.Fuzz(func(t *testing.T, config []byte) {
		out, err := Override{Tap: "tap9", Vsock: "/v"}.rewrite(config)
		if err == nil && !json.Valid(out) {
			t.Errorf("%q became %q", config, out)
		}
	})
}
