package genid

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"rouse/acpi"
)

// memory is a file that stands for /dev/mem.
func memory(t testing.TB, id ID, at int64) (*os.File, acpi.Device) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "mem"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(1 << 16); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(id[:], at); err != nil {
		t.Fatal(err)
	}
	return f, acpi.Device{Address: uint64(at)}
}

func TestPageSeesAChange(t *testing.T) {
	first, second := ID{1, 2, 3}, ID{3, 2, 1}
	f, device := memory(t, first, 0x3028)
	p, err := mapPage(f, device)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.Bytes() != first || p.ID() != first.String() {
		t.Errorf("id %s, want %s", p.ID(), first)
	}
	if _, err := f.WriteAt(second[:], 0x3028); err != nil {
		t.Fatal(err)
	}
	if p.Bytes() != second || p.ID() != second.String() {
		t.Errorf("id %s, want %s", p.ID(), second)
	}
	if n := testing.AllocsPerRun(100, func() { _ = p.ID() }); n != 0 {
		t.Errorf("%v allocations per look", n)
	}
}

func TestPageOfZerosIsNoID(t *testing.T) {
	f, device := memory(t, ID{}, 0x1000)
	if _, err := mapPage(f, device); !errors.Is(err, ErrUnreadable) {
		t.Errorf("error %v, want ErrUnreadable", err)
	}
}

func TestPageAcrossABoundaryIsRefused(t *testing.T) {
	f, device := memory(t, ID{1}, 0x1ff8)
	if _, err := mapPage(f, device); err == nil {
		t.Error("mapped")
	}
}
