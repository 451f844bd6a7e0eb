package genid

import (
	"bytes"
	"strconv"

	"rouse/internal/fmt"
)

// memoryMap is the text of /proc/iomem: who owns which physical addresses, the owner before its parts.
//
//	00100000-0fffefff : System RAM
//	  01000000-01ffffff : Kernel code
//	fec00000-fec003ff : IOAPIC 0
type memoryMap []byte

// isMemory says that all n bytes at addr are memory, RAM or set aside by the firmware. Device registers
// must not be read: reading them can have effects. The innermost owner decides; unknown addresses, and
// a map whose addresses are hidden (without CAP_SYS_ADMIN they read as zeros), are no memory.
func (m memoryMap) isMemory(addr, n uint64) bool {
	last := addr + n - 1
	if n == 0 || last < addr {
		return false
	}
	ok := false
	for rest := []byte(m); len(rest) > 0; {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		from, to, name, err := parseRegion(line)
		if err != nil {
			return false
		}
		if from <= last && addr <= to {
			ok = from <= addr && last <= to && isMemoryName(string(name))
		}
	}
	return ok
}

// isMemoryName knows the names that the kernel gives to memory (arch/x86/kernel/e820.c, e820_type_to_string;
// arch/arm64/kernel/setup.c).
func isMemoryName(name string) bool {
	switch name {
	case "System RAM", "Reserved", "reserved", "ACPI Tables", "ACPI Non-volatile Storage":
		return true
	}
	return false
}

func parseRegion(line []byte) (from, to uint64, name []byte, err error) {
	span, name, ok := bytes.Cut(bytes.TrimSpace(line), []byte(" : "))
	first, last, dash := bytes.Cut(span, []byte("-"))
	if !ok || !dash {
		return 0, 0, nil, fmt.Errorf("memory map: line %q", line)
	}
	if from, err = strconv.ParseUint(string(first), 16, 64); err != nil {
		return 0, 0, nil, err
	}
	to, err = strconv.ParseUint(string(last), 16, 64)
	return from, to, name, err
}
