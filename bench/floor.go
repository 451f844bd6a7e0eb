package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// floorArg makes this program the worker of the floor's suite.
const floorArg = "floor-worker"

// floorMain is the worker's: how many services and sockets, and the cgroup to work in.
func floorMain(args []string) error {
	services, sockets, err := numbers(args[0], args[1])
	if err != nil {
		return err
	}
	return floorWorker(services, sockets, args[2], os.Stdin, os.Stdout)
}

// numbers reads two arguments of a worker.
func numbers(first, second string) (one, two int, err error) {
	if one, err = strconv.Atoi(first); err == nil {
		two, err = strconv.Atoi(second)
	}
	return one, two, err
}

// floor compares the phases' work with the kernel, done by our packages, with bare system calls of a program in C
// (floor/floor.c), on this machine as it is: no guest, no emulation. Both work in namespaces of their own.
func floor(ctx context.Context, l *lab, r *Record) error {
	program := filepath.Join(l.dir, "floor")
	if out, err := exec.CommandContext(ctx, "gcc", "-O2", "-static", "-Wall", "-o", program, "bench/floor/floor.c").CombinedOutput(); err != nil {
		return fmt.Errorf("gcc floor.c: %w\n%s", err, out)
	}
	for _, size := range []struct{ services, sockets int }{{1, 0}, {10, 1000}} {
		if err := l.floorOf(ctx, r, program, size.services, size.sockets); err != nil {
			return fmt.Errorf("%d services, %d sockets: %w", size.services, size.sockets, err)
		}
	}
	return nil
}

func (l *lab) floorOf(ctx context.Context, r *Record, program string, services, sockets int) (err error) {
	at, err := cgroup2Mount()
	if err != nil {
		return err
	}
	cgroup, err := os.MkdirTemp(at, "rouse-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, endCgroup(cgroup)) }()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ours, err := startFloor(ctx, syscall.CLONE_NEWNET|syscall.CLONE_NEWPID|syscall.CLONE_NEWNS, self, floorArg, strconv.Itoa(services), strconv.Itoa(sockets), cgroup)
	if err != nil {
		return err
	}
	defer ours.end()
	if err := ours.ready(); err != nil {
		return err
	}
	// nsenter: a thread of ours that changed its namespace would have to be thrown away.
	bare, err := startFloor(ctx, 0, "nsenter", "--target", strconv.Itoa(ours.cmd.Process.Pid), "--net", "--pid", "--mount", program, filepath.Join(cgroup, "services"))
	if err != nil {
		return err
	}
	defer bare.end()
	if err := bare.ready(); err != nil {
		return err
	}
	for range l.repeat(7) {
		if err := compareFloor(r, ours, bare, sockets); err != nil {
			return err
		}
	}
	return nil
}

// compareFloor is one round of both. Each step's figure is the median of some; the whole is their sum.
func compareFloor(r *Record, ours, bare *floorProcess, n int) error {
	const times = 15
	a, names, err := ours.round(times)
	if err != nil {
		return fmt.Errorf("rouse: %w", err)
	}
	b, _, err := bare.round(times)
	if err != nil {
		return fmt.Errorf("floor: %w", err)
	}
	// RCU's grace period takes what it takes: most of the whole, and no work of either. Cleared is the gate after the resume.
	parts := map[string][]string{"all": names, "all but barrier": without(names, "barrier"), "resume": {"sever", "thaw", "open"}}
	for _, name := range names {
		r.add("rouse/"+name, n, "time", "ns", a[name])
		r.add("floor/"+name, n, "time", "ns", b[name])
		r.add(name, n, "ratio", "times", a[name]/b[name])
	}
	for _, part := range []string{"resume", "all but barrier", "all"} {
		var x, y float64
		for _, name := range parts[part] {
			x, y = x+a[name], y+b[name]
		}
		r.add(part, n, "ratio", "times", x/y)
	}
	return nil
}

func without(names []string, name string) []string {
	i := slices.Index(names, name)
	return slices.Concat(names[:i], names[i+1:])
}

// floorProcess does rounds as told on its standard input.
type floorProcess struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startFloor(ctx context.Context, flags uintptr, name string, args ...string) (*floorProcess, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w (needs root)", err)
	}
	return &floorProcess{cmd, in, bufio.NewScanner(out)}, nil
}

// ready waits until nothing but rounds is done.
func (p *floorProcess) ready() error {
	line, err := p.line()
	if err == nil && line != "ready" {
		err = fmt.Errorf("it says %q", line)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", p.cmd.Path, err)
	}
	return nil
}

func (p *floorProcess) line() (string, error) {
	if !p.out.Scan() {
		return "", errors.Join(p.out.Err(), io.ErrUnexpectedEOF)
	}
	return p.out.Text(), nil
}

// round gives ns by step, and the steps in their order.
func (p *floorProcess) round(times int) (took map[string]float64, names []string, err error) {
	if _, err := fmt.Fprintln(p.in, times); err != nil {
		return nil, nil, err
	}
	took = map[string]float64{}
	for {
		line, err := p.line()
		if err != nil || line == "done" {
			return took, names, err
		}
		name, value, _ := strings.Cut(line, "\t")
		if took[name], err = strconv.ParseFloat(value, 64); err != nil {
			return nil, nil, fmt.Errorf("line %q: %w", line, err)
		}
		names = append(names, name)
	}
}

// end lets the process clean up, for so long as that may take.
func (p *floorProcess) end() {
	p.in.Close()
	kill := time.AfterFunc(time.Minute, func() { _ = p.cmd.Process.Kill() })
	_ = p.cmd.Wait()
	kill.Stop()
}

func cgroup2Mount() (string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if left, right, _ := strings.Cut(line, " - "); strings.HasPrefix(right, "cgroup2 ") {
			return strings.Fields(left)[4], nil
		}
	}
	return "", errors.New("no cgroup v2 file system is mounted")
}

// endCgroup removes what a worker that did not end well has left.
func endCgroup(path string) error {
	_ = os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for _, pattern := range []string{"/*/*/", "/*/", "/"} {
			dirs, _ := filepath.Glob(path + pattern)
			for _, d := range dirs {
				_ = os.Remove(d)
			}
		}
		if _, err := os.Stat(path); os.IsNotExist(err) {
			return nil
		}
	}
	return fmt.Errorf("remove %s: processes are still in it", path)
}
