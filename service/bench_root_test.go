//go:build root

package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// benchLab runs n sleeping services.
func benchLab(b *testing.B, n int) *Manager {
	b.Helper()
	specs := make([]Spec, n)
	for i := range specs {
		specs[i] = shell(fmt.Sprint("s", i), "exec sleep 1000")
	}
	return benchSpecs(b, specs)
}

func benchSpecs(b *testing.B, specs []Spec) *Manager {
	b.Helper()
	m, err := New(Options{CgroupRoot: cgroup2(b), Reaper: testReaper, RunDir: b.TempDir()}, specs)
	if err == nil {
		err = m.Start(context.Background())
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := errors.Join(m.Stop(context.Background()), m.Close()); err != nil {
			b.Error(err)
		}
	})
	return m
}

func BenchmarkFreezeThaw(b *testing.B) {
	for _, n := range []int{1, 10, 50} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := benchLab(b, n)
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				if err := errors.Join(m.Freeze(ctx), m.Thaw(ctx)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkThaw is what a resumed guest waits for; BenchmarkThawFloor is the least that the kernel
// asks for the same: one write.
func BenchmarkThaw(b *testing.B) {
	for _, n := range []int{1, 10, 50} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := benchLab(b, n)
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				if err := m.freezer.set(ctx, true); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := m.Thaw(ctx); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkThawFloor(b *testing.B) {
	for _, n := range []int{1, 10, 50} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := benchLab(b, n)
			ctx := context.Background()
			f, err := os.OpenFile(filepath.Join(m.services.path, "cgroup.freeze"), os.O_RDWR, 0)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			for b.Loop() {
				b.StopTimer()
				if err := m.freezer.set(ctx, true); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if _, err := f.WriteAt(freezeOff, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSettle(b *testing.B) {
	for _, n := range []int{1, 10, 50} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := benchLab(b, n)
			b.ReportAllocs()
			for b.Loop() {
				if err := m.Settle(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestThawAllocates keeps a budget: what a resumed guest with cold memory touches.
func TestThawAllocates(t *testing.T) {
	l := newLab(t, shell("a", "exec sleep 1000"))
	ctx := testContext(t)
	if err := errors.Join(l.Start(ctx), l.Freeze(ctx)); err != nil {
		t.Fatal(err)
	}
	// 2026-11: one channel for those that wait for the thaw; cgroup.events is read into the stack.
	const budget = 2
	if n := testing.AllocsPerRun(100, func() {
		if err := l.Thaw(ctx); err != nil {
			t.Fatal(err)
		}
	}); n > budget {
		t.Errorf("%v allocations, budget %d", n, budget)
	}
}

// BenchmarkStart is one service from the decision to the exec of its program; confined adds the shim.
func BenchmarkStart(b *testing.B) {
	confined := shell("confined", "exec sleep 1000")
	confined.Confine.NoNewPrivs = true
	for _, s := range []Spec{shell("plain", "exec sleep 1000"), confined} {
		b.Run(s.Name, func(b *testing.B) {
			m := benchSpecs(b, []Spec{s})
			ctx := context.Background()
			for b.Loop() {
				b.StopTimer()
				if err := m.StopService(ctx, s.Name); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := m.StartService(ctx, s.Name); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
