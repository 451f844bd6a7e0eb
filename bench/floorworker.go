package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"rouse/firewall"
	"rouse/quiesce/sockdiag"
	"rouse/service"
)

// floorStep is one phase's work with the kernel, by our packages.
type floorStep struct {
	name string
	do   func() error
}

// floorWorker is a process in network, pid and mount namespaces of its own that does the phases' work with the kernel in their
// order, as often as its standard input asks: for each line "N" it prints each step's median of N times.
func floorWorker(services, sockets int, cgroup string, in io.Reader, out io.Writer) (err error) {
	runtime.LockOSThread() // as one of C does it
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	if err := errors.Join(ownProc(), loopback()); err != nil {
		return err
	}
	gate, err := firewall.New(firewall.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gate.Close()) }()
	defer guard(ctx, gate)()
	ins, err := sockdiag.New(sockdiag.Options{})
	if err != nil {
		return err
	}
	defer ins.Close()
	if err := connections(sockets / 2); err != nil {
		return err
	}
	m, err := resting(ctx, services, cgroup)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Stop(ctx), m.Close()) }()
	steps := floorSteps(ctx, gate, ins, m)
	fmt.Fprintln(out, "ready")
	for lines := bufio.NewScanner(in); lines.Scan(); {
		if err := floorRun(steps, lines.Text(), out); err != nil {
			return err
		}
		fmt.Fprintln(out, "done")
	}
	return nil
}

// guard runs the gate's guard, as PID 1 does, and returns what ends it.
func guard(ctx context.Context, gate *firewall.Gate) (end func()) {
	ctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = gate.Guard(ctx, nil)
	}()
	return func() {
		stop()
		<-done
	}
}

// ownProc shows the processes of our own pid namespace, as a guest's does: proofs that look at every process would
// else count those of the whole machine.
func ownProc() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount("proc", "/proc", "proc", 0, "")
}

func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// connections opens n idle ones from and to this process.
func connections(n int) error {
	raiseFiles()
	at := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 7000}
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Bind(l, at), unix.Listen(l, 128)); err != nil {
		return err
	}
	for range n {
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := unix.Connect(c, at); err != nil {
			return err
		}
		if _, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC); err != nil {
			return err
		}
	}
	return nil
}

// resting runs services that do nothing.
func resting(ctx context.Context, n int, cgroup string) (*service.Manager, error) {
	reaper := service.NewReaper()
	go reaper.Run(ctx)
	specs := make([]service.Spec, n)
	for i := range specs {
		specs[i] = service.Spec{Name: fmt.Sprint("s", i), Exec: []string{"/bin/sleep", "100000"}}
	}
	m, err := service.New(service.Options{CgroupRoot: cgroup, Reaper: reaper, RunDir: filepath.Join(os.TempDir(), filepath.Base(cgroup))}, specs)
	if err != nil {
		return nil, err
	}
	return m, m.Start(ctx)
}

func floorSteps(ctx context.Context, gate *firewall.Gate, ins *sockdiag.Inspector, m *service.Manager) []floorStep {
	empty := func() error {
		left, err := ins.Busy(ctx)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d sockets are busy: %v", len(left), left[0])
		}
		return err
	}
	return []floorStep{
		{"drain", empty},
		{"shut", func() error { return gate.Set(firewall.Shut) }},
		{"barrier", ins.Barrier},
		{"freeze", func() error { return m.Freeze(ctx) }},
		{"sever", func() error { _, err := ins.Inherited(ctx); return err }},
		{"thaw", func() error { return m.Thaw(ctx) }},
		{"open", func() error { return gate.Set(firewall.Open) }},
		// What the guard would do a little later.
		{"clear", func() error { _, err := gate.State(); return err }},
	}
}

// floorRun prints the median of each step, in ns.
func floorRun(steps []floorStep, times string, out io.Writer) error {
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	took := make([][]time.Duration, len(steps))
	for range n {
		for i, s := range steps {
			began := time.Now()
			if err := s.do(); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			took[i] = append(took[i], time.Since(began))
		}
	}
	for i, s := range steps {
		slices.Sort(took[i])
		fmt.Fprintf(out, "%s\t%d\n", s.name, took[i][n/2].Nanoseconds())
	}
	return nil
}
