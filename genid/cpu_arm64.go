package genid

import (
	"encoding/binary"
	"os"
)

// hwcap2RNG is HWCAP2_RNG of arch/arm64/include/uapi/asm/hwcap.h: RNDR may be read.
const hwcap2RNG = 1 << 16

// auxHwcap2 is AT_HWCAP2 of include/uapi/linux/auxvec.h.
const auxHwcap2 = 26

func hasCPURandom() bool {
	auxv, err := os.ReadFile("/proc/self/auxv")
	if err != nil {
		return false
	}
	for ; len(auxv) >= 16; auxv = auxv[16:] {
		if binary.NativeEndian.Uint64(auxv) == auxHwcap2 {
			return binary.NativeEndian.Uint64(auxv[8:])&hwcap2RNG != 0
		}
	}
	return false
}

// readCPURandom is one read of RNDR; ok is its flag.
func readCPURandom() (v uint64, ok bool)
