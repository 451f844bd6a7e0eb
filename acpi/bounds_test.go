package acpi

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"slices"
	"testing"
)

// hostileSize is the size up to which any table must be dealt with in 1 ms and 1 MiB.
const hostileSize = 16 << 10

// fill repeats parts until hostileSize is reached.
func fill(make func(i int) []byte) []byte {
	var out []byte
	for i := 0; len(out) < hostileSize-64; i++ {
		out = append(out, make(i)...)
	}
	return out
}

// name makes a segment of a number.
func name(i int) []byte {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	return []byte{letters[i%26], letters[i/26%26], letters[i/676%26], letters[i/17576%26]}
}

// packaged puts a PkgLength of three bytes before a body, and op before both.
func packaged(op []byte, body ...[]byte) []byte {
	all := slices.Concat(body...)
	n := len(all) + 3
	return slices.Concat(op, []byte{0x80 | byte(n&15), byte(n >> 4), byte(n >> 12)}, all)
}

// around makes a device whose ADDR is a method with the given code.
func around(code ...byte) []byte {
	return packaged([]byte{0x5b, 0x82}, []byte("\\VGEN"[1:]),
		[]byte("\x08_CID\x0dVM_Gen_Counter\x00"),
		packaged([]byte{0x14}, []byte("ADDR\x00"), code))
}

var scopeOp, deviceOp, methodOp = []byte{0x10}, []byte{0x5b, 0x82}, []byte{0x14}

// hostile are tables that try to take as much as they can.
func hostile() map[string][]byte {
	loop := func(body ...byte) []byte { // While (One) {...}
		return packaged([]byte{0xa2}, []byte{1}, body)
	}
	deep := func(op []byte, inner []byte, n int) []byte {
		for range n {
			inner = packaged(op, inner)
		}
		return inner
	}
	return map[string][]byte{
		"names":            fill(func(i int) []byte { return append(append([]byte{8}, name(i)...), 0) }),
		"devices":          fill(func(i int) []byte { return packaged(deviceOp, name(i)) }),
		"matching devices": fill(func(i int) []byte { return packaged(deviceOp, name(i), []byte("\x08_CID\x0dVM_Gen_Counter\x00")) }),
		"endless devices": fill(func(i int) []byte {
			return packaged(deviceOp, name(i), packaged(methodOp, []byte("_CID\x00"), loop(0xa3)))
		}),
		"unknown names":      fill(func(i int) []byte { return name(i) }),
		"unknown opcodes":    fill(func(i int) []byte { return packaged(scopeOp, []byte{'\\', 0, 2}) }),
		"zeros":              fill(func(int) []byte { return []byte{0} }),
		"empty scopes":       fill(func(int) []byte { return packaged(scopeOp, []byte{'\\', 0}) }),
		"deep scopes":        deep(scopeOp, nil, 3000),
		"deep packages":      append([]byte("\x08AAAA"), deep([]byte{0x12}, nil, 3000)...),
		"deep not":           bytes.Repeat([]byte{0x92}, hostileSize),
		"deep if":            deep([]byte{0xa0, 1}, nil, 3000),
		"loop outside":       loop(0xa3),
		"empty loop":         around(loop()...),
		"loop":               around(loop(0xa3)...),
		"loop of calls":      around(loop([]byte("\\._TZ_CALL"[1:])...)...),
		"call itself":        around([]byte("ADDR")...),
		"buffers":            around(loop(append(packaged([]byte{0x70, 0x11}, []byte{0x0b, 0, 0x10}), 0x60)...)...),
		"huge buffer":        around(append(packaged([]byte{0x70, 0x11}, []byte{0x0c, 255, 255, 255, 127}), 0x60)...),
		"huge package":       around(append(packaged([]byte{0x70, 0x13}, []byte{0x0c, 255, 255, 255, 127}), 0x60)...),
		"packages":           around(loop(append(packaged([]byte{0x70, 0x12}, []byte{255}), 0x60)...)...),
		"doubling text":      around(append([]byte("\x70\x0d0123456789abcdef\x00\x60"), loop(0x73, 0x60, 0x60, 0x60)...)...),
		"comparing":          around(slices.Concat([]byte{0x70}, packaged([]byte{0x11}, []byte{0x0c, 0, 0, 4, 0}), []byte{0x60}, loop(0x93, 0x60, 0x60))...),
		"copying":            around(slices.Concat([]byte{0x70}, packaged([]byte{0x11}, []byte{0x0c, 0, 0, 1, 0}), []byte{0x60}, loop(0x70, 0x60, 0x61))...),
		"hexadecimal":        around(slices.Concat([]byte{0x70}, packaged([]byte{0x11}, []byte{0x0c, 0, 0, 1, 0}), []byte{0x60}, loop(0x98, 0x60, 0x61))...),
		"references":         around(loop(0x70, 0x71, 0x60, 0x61)...),
		"temporary names":    around(loop(slices.Concat([]byte{0x70}, []byte("TEMP"), []byte{0x60})...)...),
		"long names":         fill(func(int) []byte { return append([]byte{0x2f, 255}, bytes.Repeat([]byte("AAAA"), 255)...) }),
		"long upward names":  fill(func(int) []byte { return append(bytes.Repeat([]byte{'^'}, 1000), "AAAA"...) }),
		"wide field":         append([]byte("\x5b\x80REGN\x00\x00\x0c\xff\xff\xff\x7f"), packaged([]byte{0x5b, 0x81}, []byte("REGN\x00WIDE\xcf\xff\xff\xff"))...),
		"fields":             append([]byte("\x5b\x80REGN\x00\x00\x0c\xff\xff\xff\x7f"), packaged([]byte{0x5b, 0x81}, []byte("REGN\x00"), fill(func(i int) []byte { return append(name(i), 8) })[:hostileSize-100])...),
		"read wide field":    slices.Concat([]byte("\x5b\x80REGN\x00\x00\x0c\xff\xff\xff\x7f"), packaged([]byte{0x5b, 0x81}, []byte("REGN\x00WIDE\xc0\x00\x01\x00")), around(loop([]byte("\x70WIDE\x60")...)...)),
		"write wide field":   slices.Concat([]byte("\x5b\x80REGN\x00\x00\x0c\xff\xff\xff\x7f"), packaged([]byte{0x5b, 0x81}, []byte("REGN\x00WIDE\xc0\x00\x01\x00")), around(loop([]byte("\x70\x00WIDE")...)...)),
		"package of strings": append([]byte("\x08AAAA"), packaged([]byte{0x12}, []byte{255}, fill(func(int) []byte { return []byte{0x0d, 'x', 0} }))...),
		"failing notes":      fill(func(i int) []byte { return append([]byte{0x70, 1}, name(i)...) }),
	}
}

// sound makes an SSDT of AML.
func sound(aml []byte) []Table { return []Table{table("SSDT", "SSDT", 2, aml...)} }

// TestBounds: what is counted stays below the limits, and so does what the runtime counts.
func TestBounds(t *testing.T) {
	for name, aml := range hostile() {
		t.Run(name, func(t *testing.T) {
			if len(aml) > hostileSize {
				t.Logf("%d bytes", len(aml))
			}
			tables := sound(aml)
			bounded(t, tables)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			FindVMGenID(tables, zeroMemory)
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 && len(aml) <= hostileSize {
				t.Errorf("%d bytes allocated, %d counted", n, newMachine(tables, zeroMemory).usedBytes)
			}
		})
	}
}

func zeroMemory(_ uint64, p []byte) error { clear(p); return nil }

// bounded runs a search and checks its counters: an error or an address, within bounded steps, memory
// and depth.
func bounded(t *testing.T, tables []Table) {
	t.Helper()
	size := 0
	for _, table := range tables {
		size += len(table.Data)
	}
	m := newMachine(tables, zeroMemory)
	d, err := m.findVMGenID(tables)
	if (err == nil) == (d.Address == 0) || err == nil && d.Path == "" {
		t.Errorf("device %+v with error %v", d, err)
	}
	// A step is counted before it is refused: the last one may go over by what it was to take.
	const last = heapBytes
	if limit := loadSteps + loadStepsPerByte*size + evalSteps; m.usedSteps > limit+last {
		t.Errorf("%d steps, limit %d", m.usedSteps, limit)
	}
	if limit := heapBytes + heapPerByte*size; m.usedBytes > limit {
		t.Errorf("%d bytes, limit %d", m.usedBytes, limit)
	}
	if m.depth != 0 || len(m.stack) != 0 {
		t.Errorf("%d levels and %d operands left", m.depth, len(m.stack))
	}
}

// BenchmarkHostile shows the time of each, which no test asserts: below 1 ms.
func BenchmarkHostile(b *testing.B) {
	for name, aml := range hostile() {
		tables := sound(aml)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				FindVMGenID(tables, zeroMemory)
			}
		})
	}
}

func BenchmarkFindVMGenID(b *testing.B) {
	for _, s := range samples(b) {
		if s.name != "qemu" && s.name != "firecracker-new" && s.name != "xen" {
			continue
		}
		tables := s.tables(b)
		b.Run(s.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := FindVMGenID(tables, s.read); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// FuzzAML puts any bytes behind a sound header, alone and around a device.
func FuzzAML(f *testing.F) {
	for _, s := range samples(f) {
		data := s.tables(f)[0].Data
		f.Add(data[headerSize:], data[8])
	}
	for _, aml := range hostile() {
		f.Add(aml[:min(len(aml), 2048)], byte(2))
	}
	f.Fuzz(func(t *testing.T, aml []byte, revision byte) {
		if len(aml) > hostileSize {
			return
		}
		bounded(t, []Table{table("DSDT", "DSDT", revision, aml...)})
		if len(aml) < hostileSize-100 {
			bounded(t, []Table{table("SSDT", "SSDT", revision, around(aml...)...)})
		}
	})
}

// FuzzTables takes any bytes as a file that may hold tables, and with its headers mended.
func FuzzTables(f *testing.F) {
	for _, s := range samples(f) {
		f.Add(s.tables(f)[0].Data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > hostileSize {
			return
		}
		tables := split("fuzz", slices.Clone(data))
		if len(tables) > 16 {
			return
		}
		bounded(t, tables)
		for _, table := range tables {
			if len(table.Data) >= headerSize {
				binary.LittleEndian.PutUint32(table.Data[4:], uint32(len(table.Data)))
				table.Data[9] -= checksum(table.Data)
			}
		}
		bounded(t, tables)
	})
}
