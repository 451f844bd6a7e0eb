package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// socketsArg and crowdArg make this program the worker of the sockets' suite, and one of those who hold its sockets.
const (
	socketsArg = "socket-worker"
	crowdArg   = "socket-crowd"
)

// sockets compares a look at n connections, and their destruction, with ss and with parsing /proc/net/tcp: natively, in a
// network namespace with n connections from another one.
func sockets(ctx context.Context, l *lab, r *Record) error {
	sizes := []int{0, 1000, 10000, 100000}
	if l.quick {
		sizes = sizes[:2]
	}
	for range l.repeat(3) {
		for _, n := range sizes {
			if err := l.worker(ctx, r, socketsArg, strconv.Itoa(n)); err != nil {
				return fmt.Errorf("%d sockets: %w", n, err)
			}
		}
	}
	return nil
}

// worker runs this program with arguments in namespaces of its own, and adds what it prints: lines of case, n, metric,
// unit and value.
func (l *lab) worker(ctx context.Context, r *Record, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	p, err := startFloor(ctx, syscall.CLONE_NEWNET|syscall.CLONE_NEWPID|syscall.CLONE_NEWNS, self, args...)
	if err != nil {
		return err
	}
	defer p.end()
	for {
		line, err := p.line()
		if err != nil {
			return fmt.Errorf("%s ended early: %w", args[0], err)
		}
		if line == "done" {
			return nil
		}
		if err := addResult(r, line); err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
	}
}

// addResult reads such a line, which result has written.
func addResult(r *Record, line string) error {
	fields := strings.Split(line, "\t")
	if len(fields) != 5 {
		return fmt.Errorf("line %q", line)
	}
	n, err1 := strconv.Atoi(fields[1])
	value, err2 := strconv.ParseFloat(fields[4], 64)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("line %q: %w", line, err)
	}
	r.add(fields[0], n, fields[2], fields[3], value)
	return nil
}

func result(name string, n int, metric, unit string, value float64) {
	fmt.Printf("%s\t%d\t%s\t%s\t%g\n", name, n, metric, unit, value)
}

// ip runs ip(8) with all lines by one process.
func ip(lines string, options ...string) error {
	cmd := exec.Command("ip", append(options, "-batch", "-")...)
	cmd.Stdin = strings.NewReader(lines)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip -batch: %w: %s", err, out)
	}
	return nil
}

// ownRun gives this mount namespace a /run and a /proc of its own, so that names and processes of the machine are none of ours.
func ownRun() error {
	if err := ownProc(); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return err
	}
	return os.MkdirAll(filepath.Join("/run", "netns"), 0o755)
}
