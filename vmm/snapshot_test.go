package vmm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// folder is a snapshot that was never a machine's.
func folder(t *testing.T) (string, Manifest) {
	t.Helper()
	dir := t.TempDir()
	m := Manifest{Version: manifestVersion}
	names := []string{KernelFile, InitrdFile, CmdlineFile, StateFile, StateFile + memorySuffix}
	for _, name := range names {
		data := bytes.Repeat([]byte(name), 1000)
		if name == StateFile+memorySuffix {
			data = append(make([]byte, 3<<20), data...)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(m.digestAll(t.Context(), dir, names), m.write(dir)); err != nil {
		t.Fatal(err)
	}
	return dir, m
}

func TestVerify(t *testing.T) {
	dir, m := folder(t)
	state := filepath.Join(dir, StateFile)
	if err := m.Verify(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	// A mark is no help to a file that was changed, whatever its times say.
	info, err := os.Stat(state)
	if err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(state)
	data[7]++
	if err := errors.Join(os.WriteFile(state, data, 0o644), os.Chtimes(state, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
	if err := m.Verify(t.Context(), dir); err == nil || !strings.Contains(err.Error(), StateFile+": sha256 is") {
		t.Errorf("a changed file: %v", err)
	}
	data[7]--
	if err := os.WriteFile(state, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := m.Verify(t.Context(), dir); err != nil {
		t.Errorf("a mended file: %v", err)
	}
	if err := os.Truncate(state, 5); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadManifest(dir); err == nil || !strings.Contains(err.Error(), "not copied whole") {
		t.Errorf("a short file: %v", err)
	}
}

// TestVerifyReadsOnce: what is marked is not read again. A mark that lies shows it.
func TestVerifyReadsOnce(t *testing.T) {
	dir, m := folder(t)
	m.Files[StateFile] = File{m.Files[StateFile].Size, strings.Repeat("0", 64)}
	marks := readMarks(dir)
	k := marks[StateFile]
	k.SHA256 = m.Files[StateFile].SHA256
	marks[StateFile] = k
	writeMarks(dir, marks)
	if err := m.Verify(t.Context(), dir); err != nil {
		t.Errorf("a marked file was read: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, verifiedFile)); err != nil {
		t.Fatal(err)
	}
	if err := m.Verify(t.Context(), dir); err == nil {
		t.Error("a file without mark was not read")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Verify(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestParseManifestRefuses(t *testing.T) {
	_, good := folder(t)
	for name, change := range map[string]func(*Manifest){
		"version":        func(m *Manifest) { m.Version = 1 },
		"way out":        func(m *Manifest) { m.Files["../x"] = m.Files[StateFile] },
		"root":           func(m *Manifest) { m.Files["/"] = m.Files[StateFile] },
		"hidden":         func(m *Manifest) { m.Files[".lock"] = m.Files[StateFile] },
		"itself":         func(m *Manifest) { m.Files[ManifestFile] = m.Files[StateFile] },
		"no state":       func(m *Manifest) { delete(m.Files, StateFile) },
		"no digest":      func(m *Manifest) { m.Files[StateFile] = File{Size: 1} },
		"negative":       func(m *Manifest) { m.Files[StateFile] = File{-1, strings.Repeat("0", 64)} },
		"disk elsewhere": func(m *Manifest) { m.Disks = []Disk{{Path: "/etc/passwd", Format: "raw"}} },
	} {
		t.Run(name, func(t *testing.T) {
			text, err := json.Marshal(good)
			if err != nil {
				t.Fatal(err)
			}
			m, err := ParseManifest(text)
			if err != nil {
				t.Fatal(err)
			}
			change(&m)
			if text, err = json.Marshal(m); err != nil {
				t.Fatal(err)
			}
			if _, err := ParseManifest(text); err == nil {
				t.Error("taken")
			}
		})
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"version":2,"files":{"vmlinuz":{"size":1,"sha256":"` + strings.Repeat("0", 64) + `"},"state":{"size":1,"sha256":"` + strings.Repeat("0", 64) + `"}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ParseManifest(text)
		if err != nil {
			return
		}
		for name := range m.Files {
			if filepath.Dir(filepath.Join("/snapshot", name)) != "/snapshot" {
				t.Errorf("%q leads out of the folder", name)
			}
		}
	})
}

// TestWorkshop: what a maker leaves is removed when it is dead, and only then.
func TestWorkshop(t *testing.T) {
	parent := t.TempDir()
	output := filepath.Join(parent, "s")
	living, err := newWorkshop(output)
	if err != nil {
		t.Fatal(err)
	}
	dead, err := newWorkshop(output)
	if err != nil {
		t.Fatal(err)
	}
	dead.lock.Close() // as the kernel does for a process that was killed
	young, old := filepath.Join(parent, ".s"+unfinished+"young"), filepath.Join(parent, ".s"+unfinished+"old")
	others := filepath.Join(parent, ".s.git") // somebody else's, whatever it is
	for _, dir := range []string{young, old, others} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(others, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	third, err := newWorkshop(output)
	if err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{living.dir: true, dead.dir: false, third.dir: true, young: true, old: false, others: true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s: %v, want it there: %v", dir, err, want)
		}
	}
	if err := errors.Join(os.Remove(young), os.Remove(others), third.publish(output)); err != nil {
		t.Fatal(err)
	}
	third.close()
	living.close()
	left, _ := os.ReadDir(parent)
	if len(left) != 1 || left[0].Name() != "s" {
		t.Errorf("left: %v", left)
	}
	if inside, _ := os.ReadDir(output); len(inside) != 0 {
		t.Errorf("a snapshot with %v in it", inside)
	}
}

func TestExpand(t *testing.T) {
	for pattern, want := range map[string]string{
		"web-{n}": "web-3", "web-{n+10}": "web-13", "52:54:00:00:00:{x+9}": "52:54:00:00:00:0c", "{y} {n-1} {n": "{y} {n-1} {n",
	} {
		if got := Expand(pattern, 3); got != want {
			t.Errorf("%s: %s, want %s", pattern, got, want)
		}
	}
	if a, b := Expand("{id}", 0), Expand("{id}", 0); len(a) != 32 || a == b {
		t.Errorf("ids %s, %s", a, b)
	}
	ids, err := Identities([]byte(`{"hostname": "h{n}", "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:{x}"}]}`), 2)
	if err != nil || ids[1].Hostname != "h1" || ids[1].Interfaces[0].MAC != "02:00:00:00:00:01" {
		t.Errorf("%+v, %v", ids, err)
	}
	if ids, err = Identities([]byte(`[{"hostname": "a"}, {"hostname": "b"}]`), 1); err != nil || len(ids) != 1 || ids[0].Hostname != "a" {
		t.Errorf("%+v, %v", ids, err)
	}
	for _, bad := range []string{`[{"hostname": "a"}]`, `nonsense`, `{"hostname": 5}`} {
		if _, err := Identities([]byte(bad), 2); err == nil {
			t.Errorf("%s: taken", bad)
		}
	}
}

func TestIdentityTaken(t *testing.T) {
	id := Identity{Hostname: "a", Interfaces: []IdentityInterface{{Name: "eth0"}}}
	for report, want := range map[string]bool{
		`{"phases":[{"name":"shut"},{"name":"identity","detail":{"identity":{"hostname":"a","interfaces":[{"name":"eth0"}]}}}]}`: true,
		`{"phases":[{"name":"identity","detail":{"identity":{"hostname":"b","interfaces":[{"name":"eth0"}]}}}]}`:                 false,
		`{"phases":[{"name":"identity","detail":{"identity":"kept: the host handed over none"}}]}`:                               false,
		`{"phases":[]}`: false,
		`x`:             false,
	} {
		if err := id.taken([]byte(report)); (err == nil) != want {
			t.Errorf("%s: %v", report, err)
		}
	}
}

// TestOverlay checks the structure; that QEMU reads it is checked in a VM test.
func TestOverlay(t *testing.T) {
	for size, clusters := range map[uint64]int{0: 4, 512: 4, 1 << 30: 4, 1 << 42: 4, 8 << 42: 7 + 4} {
		b, err := overlay(size, "/base", "raw")
		if err != nil {
			t.Errorf("%d bytes: %v", size, err)
			continue
		}
		if size < 1<<43 && len(b) != clusters*qcow2Cluster {
			t.Errorf("%d bytes: %d clusters, want %d", size, len(b)/qcow2Cluster, clusters)
		}
		if len(b)%qcow2Cluster != 0 || !bytes.Contains(b[:256], []byte("/base")) {
			t.Errorf("%d bytes: malformed", size)
		}
	}
	if _, err := overlay(1, strings.Repeat("x", 2000), "raw"); err == nil {
		t.Error("a name that the format cannot hold was taken")
	}
	dir := t.TempDir()
	base := Disk{Path: filepath.Join(dir, "base"), Format: "raw"}
	if err := os.WriteFile(base.Path, make([]byte, 12345), 0o600); err != nil {
		t.Fatal(err)
	}
	top := Disk{Path: filepath.Join(dir, "top"), Format: "qcow2"}
	if err := createOverlay(top.Path, base); err != nil {
		t.Fatal(err)
	}
	if n, err := top.size(); err != nil || n != 12800 {
		t.Errorf("size %d, %v", n, err)
	}
	if err := top.standsAlone(); err == nil {
		t.Error("an overlay was taken for a whole disk")
	}
	if err := (Disk{Path: base.Path, Format: "qcow2"}).standsAlone(); err == nil {
		t.Error("a raw image was taken for qcow2")
	}
}
