package genid

import (
	"bytes"
	"testing"
)

func TestIsCloneRecord(t *testing.T) {
	tests := map[string]struct {
		record string
		want   bool
	}{
		"Linux 6.12":           {"5,412,1234567,-;random: crng reseeded due to virtual machine fork\n", true},
		"with a caller":        {"5,412,1234567,-,caller=T12;random: crng reseeded due to virtual machine fork\n", true},
		"with a dictionary":    {"5,1,2,-;random: crng reseeded due to virtual machine fork\n SUBSYSTEM=acpi\n DEVICE=+acpi:VMGENCTR:00\n", true},
		"another line":         {"5,412,1234567,-;random: crng init done\n", false},
		"written by a process": {"13,412,1234567,-;random: crng reseeded due to virtual machine fork\n", false},
		"quoted by the kernel": {"5,412,1234567,-;audit: comm=\"random: crng reseeded due to virtual machine fork\"\n", false},
		"in the dictionary":    {"5,1,2,-;x\nrandom: crng reseeded due to virtual machine fork\n", false},
		"no header":            {"random: crng reseeded due to virtual machine fork\n", false},
		"empty":                {"", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := isCloneRecord([]byte(tt.record)); got != tt.want {
				t.Errorf("%v", got)
			}
		})
	}
}

func TestIsCloneUevent(t *testing.T) {
	tests := map[string]struct {
		event string
		want  bool
	}{
		"Linux 6.8":      {"change@/devices/LNXSYSTM:00/VMGENCTR:00\x00ACTION=change\x00NEW_VMGENID=1\x00SEQNUM=9\x00", true},
		"last, unended":  {"change@/x\x00NEW_VMGENID=1", true},
		"another value":  {"change@/x\x00NEW_VMGENID=10\x00", false},
		"a longer key":   {"change@/x\x00XNEW_VMGENID=1\x00", false},
		"another device": {"add@/devices/virtual/net/lo\x00ACTION=add\x00", false},
		"empty":          {"", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := isCloneUevent([]byte(tt.event)); got != tt.want {
				t.Errorf("%v", got)
			}
		})
	}
}

// What says "clone" must at least hold the words.
func FuzzRecords(f *testing.F) {
	f.Add([]byte("5,412,1234567,-;random: crng reseeded due to virtual machine fork\n"))
	f.Add([]byte("change@/x\x00NEW_VMGENID=1\x00"))
	f.Fuzz(func(t *testing.T, p []byte) {
		if isCloneRecord(p) && !bytes.Contains(p, []byte(";"+clonedText)) {
			t.Error("record")
		}
		if isCloneUevent(p) && !bytes.Contains(p, []byte("NEW_VMGENID=1")) {
			t.Error("uevent")
		}
	})
}

const iomem = `00000000-00000fff : Reserved
00001000-0009fbff : System RAM
000a0000-000bffff : PCI Bus 0000:00
000f0000-000fffff : Reserved
  000f0000-000fffff : System ROM
00100000-0ffdefff : System RAM
  01000000-02000fff : Kernel code
0ffdf000-0fffffff : Reserved
b0000000-bfffffff : PCI MMCONFIG 0000 [bus 00-ff]
  b0000000-bfffffff : Reserved
    b0000000-bfffffff : pnp 00:04
fc000000-fc000fff : ACPI Non-volatile Storage
fec00000-fecfffff : Reserved
  fec00000-fec003ff : IOAPIC 0
100000000-17fffffff : System RAM
`

func TestIsMemory(t *testing.T) {
	tests := map[string]struct {
		addr, n uint64
		want    bool
	}{
		"RAM":                        {0x100000, 8, true},
		"RAM above 4 GiB":            {0x17ffffff8, 8, true},
		"across the end of RAM":      {0x17ffffffc, 8, false},
		"set aside":                  {0x0ffff028, 16, true},
		"firmware's storage":         {0xfc000000, 40, true},
		"code of the kernel":         {0x1000000, 4, false},
		"across owners":              {0xffdeffc, 8, false},
		"interrupt controller":       {0xfec00010, 4, false},
		"reserved beside it":         {0xfec01000, 4, true},
		"across into it":             {0xfec003fc, 8, false},
		"PCI configuration":          {0xb0000000, 4, false},
		"video memory":               {0xa0000, 4, false},
		"nobody's":                   {0xe0000000, 4, false},
		"nothing":                    {0x100000, 0, false},
		"wraps around":               {0xfffffffffffffffc, 8, false},
		"the last byte there can be": {0xffffffffffffffff, 1, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := memoryMap(iomem).isMemory(tt.addr, tt.n); got != tt.want {
				t.Errorf("%v", got)
			}
		})
	}
	if memoryMap("00000000-00000000 : System RAM\n").isMemory(0x100000, 4) {
		t.Error("a map without addresses is no permission")
	}
}

// What is refused in a map stays refused when a line that names no memory is added.
func FuzzMemoryMap(f *testing.F) {
	f.Add([]byte(iomem), uint64(0x100000), uint64(8))
	f.Fuzz(func(t *testing.T, text []byte, addr, n uint64) {
		if memoryMap(text).isMemory(addr, n) {
			if !bytes.Contains(text, []byte("RAM")) && !bytes.Contains(text, []byte("eserved")) && !bytes.Contains(text, []byte("ACPI ")) {
				t.Error("memory without a name")
			}
			all := append(bytes.TrimRight(bytes.Clone(text), "\n"), "\n0-ffffffffffffffff : registers"...)
			if memoryMap(all).isMemory(addr, n) {
				t.Error("the innermost owner does not decide")
			}
		}
	})
}
