package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"rouse/acpi"
	"rouse/firewall"
	"rouse/genid"
	"rouse/genid/sysgenid"
	"rouse/quiesce/sockdiag"
)

// The commands that ask the kernel, and work without rouse as PID 1.

func ctlSockets(args []string, out io.Writer) error {
	f := newFlags("sockets")
	asJSON := f.Bool("json", false, "print JSON")
	wait := f.Duration("wait", 0, "how long to wait until nothing is left")
	if _, err := parse(f, args); err != nil {
		return err
	}
	ins, err := sockdiag.New(sockdiag.Options{})
	if err != nil {
		return err
	}
	defer ins.Close()
	ctx, cancel := context.WithTimeout(context.Background(), *wait)
	defer cancel()
	busy, err := untilEmpty(ctx, ins)
	if err != nil {
		return err
	}
	if err := show(out, *asJSON, busy, func() {
		for i := range busy {
			fmt.Fprintln(out, busy[i].String())
		}
	}); err != nil {
		return err
	}
	if len(busy) > 0 {
		return fmt.Errorf("%d sockets still hold something", len(busy))
	}
	return nil
}

func untilEmpty(ctx context.Context, ins *sockdiag.Inspector) ([]sockdiag.Socket, error) {
	for {
		busy, err := ins.Busy(context.WithoutCancel(ctx))
		if err != nil || len(busy) == 0 || ctx.Err() != nil {
			return busy, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func ctlGate(args []string, out io.Writer) error {
	f := newFlags("gate")
	mechanism := f.String("mechanism", "", "one of "+fmt.Sprint(firewall.Mechanisms())+"; empty is the best there is")
	asJSON := f.Bool("json", false, "print JSON")
	force := f.Bool("force", false, "open a gate that rouse holds shut: what leaves then may be a twin's")
	words, err := parse(f, args)
	if err != nil {
		return err
	}
	if err := only(words, 1, 1, "gate open|hold|shut|status"); err != nil {
		return err
	}
	o := firewall.Options{Mechanism: *mechanism}
	if words[0] != "status" {
		if err := switchGate(o, words[0], *force); err != nil {
			return err
		}
	}
	rungs := firewall.Status(o)
	return show(out, *asJSON, rungs, func() {
		for _, r := range rungs {
			fmt.Fprintf(out, "%-14s %-5s %s\n", r.Mechanism, r.State, r.Problem)
		}
	})
}

// switchGate sets the gate and leaves it so. It refuses to open what the flow keeps shut, unless it is forced.
func switchGate(o firewall.Options, word string, force bool) error {
	state, err := firewall.ParseState(word)
	if err != nil {
		return err
	}
	if state == firewall.Open && force {
		return firewall.ForceOpen(o)
	}
	var s struct{ State string }
	// Without a PID 1 to ask, the gate is the caller's own.
	if err := ask(askTimeout, "rouse-status", nil, &s); err == nil && s.State != "running" {
		return fmt.Errorf("gate %s: the machine is %s and rouse keeps the gate; `rousectl release` tries again, `gate open --force` opens all the same", word, s.State)
	}
	g, err := firewall.New(o)
	if err != nil {
		return err
	}
	return errors.Join(g.Set(state), g.Detach())
}

func ctlSysgenid(args []string, out io.Writer) error {
	f := newFlags("sysgenid")
	mode := f.String("mode", "auto", "how to serve: auto, passthrough, pagecache or file")
	least := f.Int("least", 0, "bump to at least this generation")
	timeout := f.Duration("timeout", 0, "how long to wait for watchers; 0 is for ever")
	asJSON := f.Bool("json", false, "print JSON")
	words, err := parse(f, args)
	if err != nil {
		return err
	}
	if err := only(words, 2, 2, "sysgenid serve|bump|watchers|wait PATH"); err != nil {
		return err
	}
	switch path := words[1]; words[0] {
	case "serve":
		return serveDevice(path, deviceMode(*mode), out)
	case "watchers":
		return askWatchers(path, *asJSON, out)
	case "bump":
		return deviceIoctl(path, sysgenid.TriggerGenUpdate, uintptr(*least))
	case "wait":
		return deviceIoctl(path, sysgenid.WaitWatchers, uintptr(timeout.Milliseconds()))
	default:
		return fmt.Errorf("sysgenid %q: unknown; use serve, bump, watchers or wait", words[0])
	}
}

// serveDevice serves until it is told to end.
func serveDevice(path string, mode sysgenid.Mode, out io.Writer) error {
	s, err := sysgenid.Serve(path, sysgenid.Options{Mode: mode, Log: func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "rousectl: "+format+"\n", args...)
	}})
	if err != nil {
		return err
	}
	if err := tellWatchers(path, s.Watchers); err != nil {
		return errors.Join(err, s.Close())
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGINT, unix.SIGTERM)
	fmt.Fprintf(out, "%s by %s\n", s.Path(), s.Mode())
	<-c
	return s.Close()
}

func deviceIoctl(path string, request, arg uintptr) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, arg); errno != 0 {
		if errno == unix.ETIME {
			return errors.New("watchers are late")
		}
		return fmt.Errorf("%s: %w", path, errno)
	}
	return nil
}

func ctlVMGenID(args []string, out io.Writer) error {
	f := newFlags("vmgenid")
	dir := f.String("tables", "", "read raw ACPI tables from this folder and print the address only")
	if _, err := parse(f, args); err != nil {
		return err
	}
	if *dir != "" {
		tables, err := acpi.ReadTables(os.DirFS(*dir))
		if err != nil {
			return err
		}
		device, err := acpi.FindVMGenID(tables, nil)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%#x\n", device.Address)
		return nil
	}
	page, err := genid.FindPage(genid.MachineOptions())
	if err != nil {
		return err
	}
	defer page.Close()
	fmt.Fprintf(out, "address %#x\nid      %s\nfound   %s (%s) in table %s\n", page.Device.Address, page.ID(),
		page.Device.Path, page.Device.HID, page.Device.Table)
	return nil
}
