//go:build vm

package vmm

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// untilSync starts a VM and waits for its guest's first answer; the caller closes it.
func untilSync(t testing.TB, ctx context.Context, c Config) *VM {
	t.Helper()
	vm, err := Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	client, err := vm.Control(ctx)
	if err != nil {
		vm.Close()
		t.Fatal(err)
	}
	client.Close()
	return vm
}

// cpuTime is what QEMU has used in all: on a machine that others use too it says more than the clock.
func cpuTime(vm *VM) float64 {
	s := vm.cmd.ProcessState
	return (s.UserTime() + s.SystemTime()).Seconds() * 1000
}

// measure starts and closes b.N VMs and reports QEMU's CPU time beside the clock's, in ms a VM.
func measure(b *testing.B, c Config) {
	var cpu float64
	for range b.N {
		vm := untilSync(b, b.Context(), c)
		b.StopTimer()
		vm.Close()
		cpu += cpuTime(vm)
		b.StartTimer()
	}
	b.ReportMetric(cpu/float64(b.N), "cpu-ms/op")
}

// BenchmarkBoot is from QEMU's start to the guest's first answer, by what might matter.
func BenchmarkBoot(b *testing.B) {
	base := Config{
		Kernel: kernel(b, "6.12"), Initrd: testInitrd(b, nil, nil), Cmdline: "console=ttyS0 quiet panic=-1", MemoryMiB: 192, GUID: "auto",
	}
	for _, v := range []struct {
		name   string
		change func(*Config)
	}{
		{"q35", func(*Config) {}},
		{"pc", func(c *Config) { c.Machine = "pc" }},
		{"cpu=qemu64", func(c *Config) { c.CPU = "qemu64" }},
		{"smp=2", func(c *Config) { c.CPUs = 2 }},
		{"mapped", func(c *Config) { c.MapMemory = true }},
		{"512MiB", func(c *Config) { c.MemoryMiB = 512 }},
		{"tb-size=32", func(c *Config) { c.Accel = "tcg,tb-size=32" }},
		{"tb-size=512", func(c *Config) { c.Accel = "tcg,tb-size=512" }},
		{"hpet=off", func(c *Config) { c.Machine = "q35,hpet=off" }},
		{"noconsole", func(c *Config) { c.Cmdline = "quiet panic=-1" }},
		{"tuned cmdline", func(c *Config) { c.Cmdline += " " + tuned }},
	} {
		b.Run(v.name, func(b *testing.B) {
			config := base
			v.change(&config)
			measure(b, config)
		})
	}
}

// tuned leaves out of a boot what an emulated guest does not need.
const tuned = "tsc=reliable no_timer_check cryptomgr.notests rcupdate.rcu_expedited=1 pci=lastbus=1 i8042.noaux i8042.nokbd random.trust_cpu=on"

// BenchmarkClone is from QEMU's start to the clone's first answer.
func BenchmarkClone(b *testing.B) {
	for _, mapped := range []bool{false, true} {
		base := Config{
			Kernel: kernel(b, "6.12"), Initrd: testInitrd(b, nil, nil), Cmdline: "console=ttyS0 quiet panic=-1", MemoryMiB: 256, MapMemory: mapped,
		}
		snapshot := filepath.Join(b.TempDir(), "state")
		vm := untilSync(b, b.Context(), base)
		if err := vm.Snapshot(b.Context(), snapshot); err != nil {
			b.Fatal(err)
		}
		vm.Close()
		base.Incoming, base.GUID = snapshot, "auto"
		b.Run(fmt.Sprintf("mapped=%v", mapped), func(b *testing.B) { measure(b, base) })
	}
}

// TestClonesShareMemory: clones of a mapped snapshot cost what they change, and one copy together.
func TestClonesShareMemory(t *testing.T) {
	ctx := testContext(t)
	const clones = 4
	total := map[bool]int{}
	for _, mapped := range []bool{false, true} {
		base := small(t, "source")
		base.MapMemory = mapped
		source := start(t, ctx, base)
		dial(t, ctx, source).Close()
		snapshot := filepath.Join(t.TempDir(), "state")
		if err := source.Snapshot(ctx, snapshot); err != nil {
			t.Fatal(err)
		}
		source.Close()
		var vms []*VM
		for i := range clones {
			c := base
			c.Name, c.Dir, c.Incoming, c.GUID = fmt.Sprint("clone", i), "", snapshot, "auto"
			vm := start(t, ctx, c)
			dial(t, ctx, vm).Close()
			vms = append(vms, vm)
		}
		for _, vm := range vms {
			total[mapped] += pss(t, vm.PID())
			vm.Close()
		}
		t.Logf("mapped=%v: %d clones of %d MiB hold %d MiB together", mapped, clones, base.MemoryMiB, total[mapped]>>10)
	}
	if total[true] >= total[false] {
		t.Errorf("%d KiB mapped, %d KiB not: mapping saves nothing", total[true], total[false])
	}
}

// pss is what a process holds of the machine's memory in KiB, shared pages by their share.
func pss(t *testing.T, pid int) int {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "Pss:"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no Pss")
	return 0
}
