package acpi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// treeSample is one device tree source of testdata with what its comments say:
//
//	// vmgenid PATH ADDRESS SIZE     or: vmgenid error TEXT
//	// vmclock PATH ADDRESS SIZE
type treeSample struct {
	name, vmgenid, vmclock string
	blob                   []byte
}

func treeSamples(t testing.TB) []treeSample {
	t.Helper()
	files, err := filepath.Glob("testdata/*.dts")
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	var all []treeSample
	for _, file := range files {
		base := strings.TrimSuffix(file, ".dts")
		s := treeSample{name: filepath.Base(base)}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if w, ok := strings.CutPrefix(line, "// vmgenid "); ok {
				s.vmgenid = strings.TrimSpace(w)
			}
			if w, ok := strings.CutPrefix(line, "// vmclock "); ok {
				s.vmclock = strings.TrimSpace(w)
			}
		}
		if s.blob, err = os.ReadFile(base + ".dtb"); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

// laidOut makes files of a blob as the kernel does.
func laidOut(t testing.TB, blob []byte) fstest.MapFS {
	t.Helper()
	root, err := parseBlob(blob)
	if err != nil {
		t.Fatal(err)
	}
	fsys := fstest.MapFS{}
	var lay func(n *blobNode, dir string)
	lay = func(n *blobNode, dir string) {
		fsys[path.Join(dir, "name")] = file([]byte(n.label))
		for name, p := range n.properties {
			fsys[path.Join(dir, name)] = file(p)
		}
		for _, c := range n.below {
			lay(c.(*blobNode), path.Join(dir, c.name()))
		}
	}
	lay(root, "")
	return fsys
}

func checkDevice(t *testing.T, what string, d Device, err error, want string) {
	t.Helper()
	if text, ok := strings.CutPrefix(want, "error "); ok {
		if err == nil || !strings.Contains(err.Error(), text) || !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrTree) {
			t.Errorf("%s: got %+v, error %v; want error %q", what, d, err, text)
		}
		return
	}
	if got := fmt.Sprintf("%s %#x %d", d.Path, d.Address, d.Size); err != nil || got != want {
		t.Errorf("%s: got %s, error %v; want %s", what, got, err, want)
	}
}

func TestDeviceTree(t *testing.T) {
	for _, s := range treeSamples(t) {
		t.Run(s.name, func(t *testing.T) {
			d, err := FindVMGenIDBlob(s.blob)
			checkDevice(t, "vmgenid in blob", d, err, s.vmgenid)
			d, err = FindVMClockBlob(s.blob)
			checkDevice(t, "vmclock in blob", d, err, s.vmclock)
			fsys := laidOut(t, s.blob)
			d, err = FindVMGenIDTree(fsys)
			checkDevice(t, "vmgenid in files", d, err, s.vmgenid)
			d, err = FindVMClockTree(fsys)
			checkDevice(t, "vmclock in files", d, err, s.vmclock)
		})
	}
}

func TestDamagedBlobs(t *testing.T) {
	good := treeSamples(t)[0].blob
	word := func(at int, v uint32) []byte {
		b := slices.Clone(good)
		binary.BigEndian.PutUint32(b[at:], v)
		return b
	}
	tests := map[string][]byte{
		"empty":             nil,
		"short":             good[:blobHeader-1],
		"magic":             word(0, 1),
		"cut off":           good[:len(good)-1],
		"length":            word(4, 39),
		"tokens outside":    word(8, 0xffffffff),
		"names outside":     word(12, 0xffffffff),
		"version too old":   word(20, 16),
		"version too new":   word(24, 18),
		"tokens without an": word(36, 8),
		"tokens empty":      word(36, 0),
	}
	for name, blob := range tests {
		if _, err := FindVMGenIDBlob(blob); !errors.Is(err, ErrTree) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := FindVMGenIDTree(fstest.MapFS{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("no files: %v", err)
	}
	if _, err := FindVMGenIDTree(os.DirFS(filepath.Join(t.TempDir(), "missing"))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	large := fstest.MapFS{"a/compatible": file(make([]byte, maxTreeProperty+1))}
	if _, err := FindVMGenIDTree(large); !errors.Is(err, ErrTree) {
		t.Errorf("large property: %v", err)
	}
	deep := strings.Repeat("a/", maxTreeDepth+2)
	if _, err := FindVMGenIDTree(fstest.MapFS{deep + "compatible": file()}); !errors.Is(err, ErrTree) {
		t.Errorf("deep files: %v", err)
	}
}

// FuzzBlob: an error or an address, never a panic; and the same address from files.
func FuzzBlob(f *testing.F) {
	for _, s := range treeSamples(f) {
		f.Add(s.blob)
	}
	f.Fuzz(func(t *testing.T, blob []byte) {
		d, err := FindVMGenIDBlob(blob)
		if (err == nil) == (d.Address == 0) || err == nil && (d.Size < 16 || d.Path == "") {
			t.Errorf("device %+v with error %v", d, err)
		}
		FindVMClockBlob(blob)
	})
}
