package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// goBench is a suite whose cases are Go benchmarks that stand beside the code: peers and ours are
// in one benchmark, so that one run compares them. quick, if not empty, is the pattern to see that all works.
func goBench(pkg, pattern, quick string, count int) func(context.Context, *lab, *Record) error {
	return func(ctx context.Context, l *lab, r *Record) error {
		once := "1s"
		if l.quick {
			once, pattern = "1x", cmp.Or(quick, pattern)
		}
		// Repetitions are runs of their own, so that all cases of one come before the next.
		for range l.repeat(count) {
			cmd := exec.CommandContext(ctx, "go", "test", "-tags", "root", "-run", "^$", "-bench", pattern, "-benchtime", once, "-timeout", "30m", pkg)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			out, err := cmd.CombinedOutput()
			if err != nil {
				return fmt.Errorf("go test -bench %s %s: %w\n%s", pattern, pkg, err, tail(out))
			}
			if err := parseBench(r, out); err != nil {
				return err
			}
		}
		return nil
	}
}

// parseBench reads `go test -bench` lines (golang.org/design/14313-benchmark-format).
func parseBench(r *Record, out []byte) error {
	found := false
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name, n := benchName(fields[0])
		for i := 2; i+1 < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return fmt.Errorf("benchmark line %q: %w", s.Text(), err)
			}
			unit := fields[i+1]
			metric := strings.TrimSuffix(unit, "/op")
			if unit == "ns/op" {
				metric = "time"
			}
			r.add(name, n, metric, unit, value)
			found = true
		}
	}
	if !found {
		return fmt.Errorf("no benchmark ran; the output:\n%s", tail(out))
	}
	return nil
}

// benchName takes the number of processors away, and the part that is a size: BenchmarkFanout/read/1000/page-2.
func benchName(text string) (name string, n int) {
	name = strings.TrimPrefix(text, "Benchmark")
	if i := strings.LastIndexByte(name, '-'); i >= 0 {
		if _, err := strconv.Atoi(name[i+1:]); err == nil {
			name = name[:i]
		}
	}
	var parts []string
	for _, p := range strings.Split(name, "/") {
		if v, err := strconv.Atoi(p); err == nil {
			n = v
		} else {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, "/"), n
}
