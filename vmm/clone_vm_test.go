//go:build vm

package vmm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bakeWeb makes a snapshot of the example server with a disk.
func bakeWeb(t *testing.T) (string, Manifest) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	disk := filepath.Join(t.TempDir(), "data.raw")
	if err := os.WriteFile(disk, []byte(strings.Repeat("disk", 1<<18)), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "snapshot")
	m, err := Bake(ctx, BakeConfig{Image: webImage(t, webConfig, ""), Output: dir, BootTimeout: 2 * time.Minute,
		VM: Config{Forwards: []Forward{{GuestPort: 443}}, Disks: []Disk{{Path: disk, Format: "raw"}}}})
	if err != nil {
		t.Fatal(err)
	}
	return dir, m
}

// TestClone makes clones of one snapshot with names, addresses and disks of their own, and refuses what is
// not as it was.
func TestClone(t *testing.T) {
	snapshot, m := bakeWeb(t)
	t.Run("identity", func(t *testing.T) { cloneIdentity(t, snapshot) })
	t.Run("disks", func(t *testing.T) { cloneDisks(t, snapshot, m) })
	t.Run("refused", func(t *testing.T) { cloneRefused(t, snapshot, m) })
}

func cloneIdentity(t *testing.T, snapshot string) {
	ids, err := Identities([]byte(`{"hostname": "web-{n+1}", "machine-id": "{id}",
		"interfaces": [{"name": "eth0", "mac": "52:54:00:77:00:{x+10}", "addresses": ["10.0.2.15/24"], "gateway4": "10.0.2.2"}]}`), 2)
	if err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	clones, err := StartClones(ctx, CloneConfig{Snapshot: snapshot, N: 2, Identities: ids, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer CloseAll(clones)
	for i, k := range clones {
		c := dial(t, ctx, k.VM)
		var name struct {
			Name string `json:"host-name"`
		}
		if err := c.Do(ctx, "guest-get-host-name", nil, &name); err != nil || name.Name != fmt.Sprintf("web-%d", i+1) {
			t.Errorf("clone %d: host name %q, %v", i, name.Name, err)
		}
		var nics []struct {
			MAC string `json:"hardware-address"`
		}
		if err := c.Do(ctx, "guest-network-get-interfaces", nil, &nics); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("52:54:00:77:00:0%x", i+10); !strings.Contains(fmt.Sprint(nics), want) {
			t.Errorf("clone %d: interfaces %v, want MAC %s", i, nics, want)
		}
		t.Logf("clone %d: generation %d, ready after %v", i, k.Status.Generation, k.Ready)
	}
}

// cloneDisks: a clone writes to an overlay; the snapshot's disk stays as it was.
func cloneDisks(t *testing.T, snapshot string, m Manifest) {
	ctx := testContext(t)
	clones, err := StartClones(ctx, CloneConfig{Snapshot: snapshot, N: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer CloseAll(clones)
	vm := clones[0].VM
	var blocks []struct {
		Inserted struct {
			File         string
			BackingFile  string `json:"backing_file"`
			BackingDepth int    `json:"backing_file_depth"`
		}
	}
	if err := vm.QMP(ctx, "query-block", nil, &blocks); err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(snapshot, "disk0")
	if len(blocks) != 1 || blocks[0].Inserted.BackingFile != base || blocks[0].Inserted.File != vm.path("disk0.qcow2") {
		t.Errorf("%+v, want an overlay in the run folder over %s", blocks, base)
	}
	// QEMU itself writes through the device, reads back, and the base keeps its bytes.
	for _, io := range []string{"write -P 0x5a 0 64k", "read -P 0x5a 0 64k", "read -P 0x64 64k 1"} {
		if text, err := vm.humanMonitor(ctx, `qemu-io disk0 "`+io+`"`); err != nil || strings.Contains(text, "rror") || strings.Contains(text, "failed") {
			t.Errorf("%s: %q, %v", io, text, err)
		}
	}
	os.Remove(filepath.Join(snapshot, verifiedFile))
	if err := m.Verify(ctx, snapshot); err != nil {
		t.Errorf("a clone changed its snapshot: %v", err)
	}
}

// cloneRefused breaks the snapshot in every way that clone promises to notice.
func cloneRefused(t *testing.T, snapshot string, m Manifest) {
	for name, tt := range map[string]struct {
		change func(*Manifest)
		want   string
	}{
		"QEMU":    {func(m *Manifest) { m.QEMU = "9.9.9" }, "snapshot of QEMU 9.9.9"},
		"machine": {func(m *Manifest) { m.Machine = "pc-i440fx-7.2"; m.QEMU = "1.2.3" }, "bake it again"},
		"CPU":     {func(m *Manifest) { m.CPUFeatures = append(m.CPUFeatures, "warp-drive") }, "lacks warp-drive"},
		"digest":  {func(m *Manifest) { f := m.Files[StateFile]; f.SHA256 = strings.Repeat("0", 64); m.Files[StateFile] = f }, "changed or damaged"},
		"size":    {func(m *Manifest) { f := m.Files[StateFile]; f.Size++; m.Files[StateFile] = f }, "not copied whole"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			files := map[string]File{}
			for name, f := range m.Files {
				files[name] = f
				if err := os.Link(filepath.Join(snapshot, name), filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			bad := m
			bad.Files, bad.CPUFeatures = files, append([]string(nil), m.CPUFeatures...)
			tt.change(&bad)
			if err := bad.write(dir); err != nil {
				t.Fatal(err)
			}
			clones, err := StartClones(testContext(t), CloneConfig{Snapshot: dir})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			CloseAll(clones)
		})
	}
}

// TestBakeInterrupted: whatever ends a bake, no half snapshot is there, and nothing runs on.
func TestBakeInterrupted(t *testing.T) {
	image := webImage(t, webConfig, "")
	parent := t.TempDir()
	for _, at := range []string{"boot", "wait for services", "quiesce", "snapshot", "digest"} {
		t.Run(at, func(t *testing.T) {
			ctx, cancel := context.WithCancel(testContext(t))
			output := filepath.Join(parent, "snapshot")
			_, err := Bake(ctx, BakeConfig{Image: image, Output: output, Step: func(step string) {
				if step == at {
					cancel()
				}
			}})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			left, _ := os.ReadDir(parent)
			if len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
