package genid

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"unsafe"

	"rouse/internal/fmt"
)

// The page that a hypervisor shares through a vmclock device (include/uapi/linux/vmclock-abi.h, struct
// vmclock_abi; all fields little-endian):
//
//	0   __le32 magic
//	4   __le32 size                    of the region
//	8   __le16 version
//	12  __le32 seq_count               odd while the page is being written
//	16  __le64 disruption_marker       also moves when the guest has only been moved: no generation
//	24  __le64 flags
//	104 __le64 vm_generation_counter
const (
	clockMagic       = 0x4b4c4356 // VMCLOCK_MAGIC, "VCLK"
	clockSize        = 112        // the end of vm_generation_counter
	clockVersion     = 1
	clockAtSize      = 4
	clockAtVersion   = 8
	clockAtSeq       = 12
	clockAtFlags     = 24
	clockAtCounter   = 104
	clockHasCounter  = 1 << 8 // VMCLOCK_FLAG_VM_GEN_COUNTER_PRESENT
	clockHasNotifier = 1 << 9 // VMCLOCK_FLAG_NOTIFICATION_PRESENT
)

// clockTries bounds how often a reading is tried that a writer keeps tearing. A hypervisor writes for
// nanoseconds; a torn look is made up for by the next one, a millisecond later.
const clockTries = 100

var errClockTorn error = fault("a writer does not finish")

// clockPage is the mapped page: at least clockSize bytes, aligned to 8.
type clockPage []byte

// counter reads the generation counter, or says that a writer is in the way. Every look reads memory:
// that the device notified is never needed for it.
func (p clockPage) counter() (uint64, bool) {
	seq := (*uint32)(unsafe.Pointer(&p[clockAtSeq]))
	word := (*uint64)(unsafe.Pointer(&p[clockAtCounter]))
	for range clockTries {
		before := atomic.LoadUint32(seq)
		// Go's atomic loads are not reordered with each other, as the kernel's virt_rmb() asks.
		v := atomic.LoadUint64(word)
		if before&1 == 0 && atomic.LoadUint32(seq) == before {
			return v, true
		}
	}
	return 0, false
}

func (p clockPage) notifies() bool {
	return binary.LittleEndian.Uint64(p[clockAtFlags:])&clockHasNotifier != 0
}

// check says why the page is of no use.
func (p clockPage) check() error {
	if len(p) < clockSize {
		return fmt.Errorf("page of %d bytes: too small", len(p))
	}
	if magic := binary.LittleEndian.Uint32(p); magic != clockMagic {
		return fmt.Errorf("magic %#x, want %#x", magic, clockMagic)
	}
	size, version := binary.LittleEndian.Uint32(p[clockAtSize:]), binary.LittleEndian.Uint16(p[clockAtVersion:])
	if size < clockSize || version != clockVersion {
		return fmt.Errorf("version %d with %d bytes: has no generation counter", version, size)
	}
	if binary.LittleEndian.Uint64(p[clockAtFlags:])&clockHasCounter == 0 {
		return errors.New("the hypervisor keeps no generation counter")
	}
	return nil
}
