package genid

import "testing"

func TestIDString(t *testing.T) {
	// QEMU's -device vmgenid,guid=324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87 leaves these bytes in memory.
	id := ID{0xaf, 0x6e, 0x4e, 0x32, 0xd1, 0xd1, 0xf6, 0x4b, 0xbf, 0x41, 0xb9, 0xbb, 0x6c, 0x91, 0xfb, 0x87}
	if got, want := id.String(), "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if id.IsZero() || !(ID{}).IsZero() {
		t.Error("IsZero is wrong")
	}
}

func TestCPURandom(t *testing.T) {
	if !hasCPURandom() {
		t.Skip("this processor has no RDRAND or RNDR")
	}
	var a, b [cpuBytes]byte
	if n := cpuRandom(a[:]); n != cpuBytes {
		t.Fatalf("%d bytes, want %d", n, cpuBytes)
	}
	cpuRandom(b[:])
	if a == b {
		t.Error("two draws are equal")
	}
}
