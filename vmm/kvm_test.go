package vmm

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestProbeKernelIsItsSource assembles the source again.
func TestProbeKernelIsItsSource(t *testing.T) {
	for _, tool := range []string{"as", "ld"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs binutils:", err)
		}
	}
	dir := t.TempDir()
	obj, bin := filepath.Join(dir, "probe.o"), filepath.Join(dir, "probe.bin")
	run(t, "as", "--32", "-o", obj, "kvmprobe/probe.S")
	run(t, "ld", "-m", "elf_i386", "-Ttext=0x100000", "--oformat=binary", "-o", bin, obj)
	got, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, probeKernel) {
		t.Errorf("kvmprobe/probe.bin is not what probe.S assembles to: %d and %d bytes", len(probeKernel), len(got))
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if msg, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, msg)
	}
}

// TestProbe runs the probe where it must work: the emulator runs anything. What KVM gives is the machine's
// affair; it must only be an answer.
func TestProbe(t *testing.T) {
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("needs QEMU:", err)
	}
	if err := probe(context.Background(), "tcg"); err != nil {
		t.Error(err)
	}
	t.Log("KVM:", ProbeKVM(context.Background()))
}
