package genid

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"
	"unsafe"
)

// boardBlob is Firecracker's device tree on arm64, compiled by dtc (acpi/testdata/generate.sh), and where its two
// devices lie.
const (
	boardBlob  = "../acpi/testdata/firecracker-arm64.dtb"
	boardID    = 0x1fffffff0
	boardClock = 0x1fffef000
)

// blobFiles lays a compiled device tree out as the kernel does (Devicetree Specification 0.4, 5.4).
func blobFiles(t testing.TB, file string) fstest.MapFS {
	t.Helper()
	blob, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	word := func(at uint32) uint32 { return binary.BigEndian.Uint32(blob[at:]) }
	text := func(at uint32) string { return string(blob[at : at+uint32(bytes.IndexByte(blob[at:], 0))]) }
	fsys, dir := fstest.MapFS{}, ""
	names, at := word(12), word(8)
	for {
		token := word(at)
		at += 4
		switch token {
		case 1: // FDT_BEGIN_NODE
			name := text(at)
			at += uint32(len(name)+4) &^ 3
			if dir = path.Join(dir, name); dir != "" {
				fsys[dir] = &fstest.MapFile{Mode: fs.ModeDir | 0o755}
			}
		case 2: // FDT_END_NODE
			dir = strings.TrimSuffix(path.Dir(dir), ".")
		case 3: // FDT_PROP
			n := word(at)
			fsys[path.Join(dir, text(names+word(at+4)))] = &fstest.MapFile{Data: blob[at+8 : at+8+n]}
			at += 8 + (n+3)&^3
		case 4: // FDT_NOP
		default:
			return fsys
		}
	}
}

// boardWithClock is a machine of that device tree without a driver: its memory is a file with holes, in which a
// hypervisor writes.
func boardWithClock(t testing.TB) (*hypervisor, Options) {
	t.Helper()
	mem := filepath.Join(t.TempDir(), "mem")
	if err := os.WriteFile(mem, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(mem, 0x200000000); err != nil {
		t.Skipf("no file of 8 GiB with holes: %v", err)
	}
	f, err := os.OpenFile(mem, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(bytes.Repeat([]byte{7}, IDSize), boardID); err != nil {
		t.Fatal(err)
	}
	return hypervisorAt(t, mem, boardClock, clockHasCounter|clockHasNotifier),
		Options{Tables: os.DirFS("/nonexistent"), Tree: blobFiles(t, boardBlob), Memory: mem, VMClock: filepath.Join(filepath.Dir(mem), "vmclock0")}
}

// Without a driver's /dev/vmclock0 the page is found by the device tree, and read from memory.
func TestVMClockByDeviceTree(t *testing.T) {
	h, o := boardWithClock(t)
	s := open(t, o)
	if !slices.Equal(s.Names(), []string{SourceVMGenID, SourceVMClock}) {
		t.Fatalf("sources %v", s.Names())
	}
	if s.Prompt() {
		t.Error("notifications go to a driver, and there is none")
	}
	if d := s.Page().Device; d.Address != boardID {
		t.Errorf("id at %#x", d.Address)
	}
	clock := &s.all.members[1]
	h.clone(9)
	if v := clock.read(); v[0] != 9 {
		t.Errorf("counter %d, want 9", v[0])
	}
	atomic.AddUint32(h.seq(), 1)
	atomic.StoreUint64(h.word(104), 10)
	if v := clock.read(); v[0] != 9 {
		t.Errorf("half written: %d, want 9", v[0])
	}
	atomic.AddUint32(h.seq(), 1)
	if v := clock.read(); v[0] != 10 {
		t.Errorf("written: %d, want 10", v[0])
	}
}

// A driver's device goes before the region, and a region that cannot be used is told of.
func TestVMClockByDeviceTreeRefused(t *testing.T) {
	moved := func(addr uint64) func(*Options) {
		return func(o *Options) {
			reg := binary.BigEndian.AppendUint64(nil, addr)
			o.Tree.(fstest.MapFS)["ptp@1fffef000/reg"] = &fstest.MapFile{Data: binary.BigEndian.AppendUint64(reg, 4096)}
		}
	}
	tests := map[string]struct {
		change func(*Options)
		want   string // in the log; "" is none
	}{
		"a driver's device": {func(o *Options) { o.VMClock = newHypervisor(t, clockHasCounter).path; moved(0x3001)(o) }, ""},
		"no node":           {func(o *Options) { delete(o.Tree.(fstest.MapFS), "ptp@1fffef000/compatible") }, ""},
		"no tree":           {func(o *Options) { o.Tree = nil }, ""},
		"disabled": {func(o *Options) {
			o.Tree.(fstest.MapFS)["ptp@1fffef000/status"] = &fstest.MapFile{Data: []byte("disabled\x00")}
		}, ""},
		"odd address":        {moved(0x3001), "not 8-byte aligned"},
		"across a boundary":  {moved(0x3ff0), "not 8-byte aligned within a page"},
		"behind the memory":  {moved(0x200000000), "too small"},
		"nothing there":      {moved(0x3000), "magic"},
		"too small a region": {func(o *Options) { o.Tree.(fstest.MapFS)["ptp@1fffef000/reg"] = &fstest.MapFile{Data: make([]byte, 16)} }, "reg is for 0 bytes"},
		"unreadable memory":  {func(o *Options) { o.Memory = "/nonexistent/mem" }, "page at 0x1fffef000"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, o := boardWithClock(t)
			tt.change(&o)
			var told strings.Builder
			o.Log = func(format string, args ...any) {
				told.WriteString(strings.TrimSpace(fmt.Sprintf(format, args...)) + "\n")
			}
			s := OpenSources(o)
			defer s.Close()
			if tt.want == "" && strings.Contains(told.String(), SourceVMClock) || !strings.Contains(told.String(), tt.want) {
				t.Errorf("log %q, want %q", told.String(), tt.want)
			}
			if want := name == "a driver's device"; slices.Contains(s.Names(), SourceVMClock) != want {
				t.Errorf("sources %v", s.Names())
			}
		})
	}
}

// A writer that never rests: both halves of the counter are written one after the other, so that a
// reading that the seqlock did not catch would show two halves that differ.
func TestVMClockTorn(t *testing.T) {
	t.Run("device", func(t *testing.T) {
		h := newHypervisor(t, clockHasCounter)
		tornUpdates(t, h, open(t, Options{VMClock: h.path}), 0)
	})
	t.Run("region of the device tree", func(t *testing.T) {
		h, o := boardWithClock(t)
		tornUpdates(t, h, open(t, o), 1)
	})
}

// tornUpdates reads the member of that number while it is written.
func tornUpdates(t *testing.T, h *hypervisor, s *Sources, member int) {
	var stop atomic.Bool
	var writer sync.WaitGroup
	writer.Go(func() {
		low, high := (*uint32)(unsafe.Pointer(&h.page[104])), (*uint32)(unsafe.Pointer(&h.page[108]))
		for n := uint32(1); !stop.Load(); n++ {
			atomic.AddUint32(h.seq(), 1)
			atomic.StoreUint32(low, n)
			runtime.Gosched()
			atomic.StoreUint32(high, n)
			atomic.AddUint32(h.seq(), 1)
			runtime.Gosched()
		}
	})
	seen := map[reading]bool{}
	// On a busy machine the writer may not get to run in all that time, or be kept from it halfway: then longer.
	for n, end := 0, time.Now().Add(time.Minute); n < 20000 || len(seen) < 2 && time.Now().Before(end); n++ {
		s.mu.Lock()
		v := s.all.members[member].read()
		s.mu.Unlock()
		if uint32(v[0]) != uint32(v[0]>>32) {
			t.Errorf("torn: %#x", v[0])
			break
		}
		seen[v] = true
		runtime.Gosched()
	}
	stop.Store(true)
	writer.Wait()
	if t.Logf("%d values seen", len(seen)); len(seen) < 2 {
		t.Error("no update was ever seen")
	}
}
