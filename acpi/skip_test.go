package acpi

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestSkip: outside methods, a term that cannot be run is stepped over, and the device behind it is
// found. NOPE does not exist.
func TestSkip(t *testing.T) {
	bad := map[string][]byte{
		"name":             []byte("NOPE"),
		"store":            []byte("\x70NOPENOPF"),
		"store to debug":   []byte("\x70NOPE\x5b\x31"),
		"store to local":   []byte("\x70NOPE\x60"),
		"add, no target":   []byte("\x72NOPE\x01\x00"),
		"add, target":      []byte("\x72NOPE\x0c\x01\x02\x03\x04NOPF"),
		"string":           []byte("\x93\x0dabc\x00NOPE"),
		"call":             slices.Concat(packaged(methodOp, []byte("TWO_\x02"), []byte{0xa4, 0x72, 0x68, 0x69, 0}), []byte("TWO_NOPE\x0a\x05")),
		"call in a call":   slices.Concat(packaged(methodOp, []byte("TWO_\x02"), []byte{0xa4, 1}), []byte("TWO_TWO_NOPE\x01\x01")),
		"if and else":      slices.Concat(packaged([]byte{0xa0}, []byte("NOPE"), []byte{0xa3}), packaged([]byte{0xa1}, []byte{0xa3})),
		"while":            packaged([]byte{0xa2}, []byte("NOPE")),
		"name of unknown":  []byte("\x08AAAANOPE"),
		"defined twice":    []byte("\x08AAAA\x00\x08AAAA\x0d\x00"),
		"region":           []byte("\x5b\x80REGN\x00NOPE\x01"),
		"field":            packaged([]byte{0x5b, 0x81}, []byte("NOPE\x00AAAA\x08")),
		"index":            []byte("\x88NOPE\x00\x00"),
		"reference":        []byte("\x70\x71NOPE\x60"),
		"conditional":      []byte("\x90NOPE\x5b\x12NOPF\x60"),
		"match":            []byte("\x89NOPE\x00\x01\x00\x01\x00"),
		"buffer field":     []byte("\x8aNOPE\x00AAAA"),
		"scope":            packaged(scopeOp, []byte("NOPE"), []byte{0xff, 0xfe}),
		"device in device": packaged(deviceOp, []byte("XXXX"), []byte("\x08AAAANOPE"), []byte("\x08BBBB\x01")),
		"alias":            []byte("\x06NOPEAAAA"),
		"load":             []byte("\x5b\x20NOPE\x60"),
		"above the root":   []byte("\x70^^NOPE\x60"),
		"unknown opcode":   packaged(deviceOp, []byte("AAAA"), []byte{0x02}),
		"fatal":            []byte("\x5b\x32\x01\x02\x00\x00\x00\x01"),
	}
	good := packaged(deviceOp, []byte("VGEN"), []byte("\x08_CID\x0dVM_Gen_Counter\x00"),
		packaged(append([]byte("\x08ADDR"), 0x12), []byte{2, 0x0b, 0, 0x10, 0}))
	for name, aml := range bad {
		t.Run(name, func(t *testing.T) {
			d, err := FindVMGenID(sound(append(slices.Clone(aml), good...)), nil)
			if err != nil || d.Address != 0x1000 || d.Path != `\VGEN` {
				t.Errorf("%+v, %v", d, err)
			}
			_, err = FindVMGenID(sound(aml), nil)
			if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), " at ") {
				t.Errorf("alone: %v", err)
			}
		})
	}
}

// TestReader: what the reader says is in the error, and without one there is none to ask.
func TestReader(t *testing.T) {
	for _, s := range samples(t) {
		if s.name != "xen" {
			continue
		}
		tables := s.tables(t)
		if _, err := FindVMGenID(tables, nil); !errors.Is(err, errNoReader) {
			t.Errorf("no reader: %v", err)
		}
		broken := errors.New("locked down")
		_, err := FindVMGenID(tables, func(addr uint64, p []byte) error {
			if addr != 0xfc000014 || len(p) != 4 {
				t.Errorf("read of %d bytes at %#x", len(p), addr)
			}
			return broken
		})
		if !errors.Is(err, broken) {
			t.Errorf("broken reader: %v", err)
		}
	}
}
