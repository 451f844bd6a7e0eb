package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rouse/acpi"
	"rouse/firewall"
	"rouse/genid"
	"rouse/genid/sysgenid"
	"rouse/internal/fmt"
	"rouse/quiesce/sockdiag"
)

// The commands that ask the kernel, and work without rouse as PID 1.

// socketsLeft is what `rousectl sockets --json` prints.
type socketsLeft struct {
	Left    []sockdiag.Socket  `json:"left"`
	Summary []sockdiag.Summary `json:"summary"` // by service, or by process where there is none
}

// ctlSockets shows what a drain would wait for, and what it would be too late to wait for after it: pipes between
// services and what no table of the kernel lists.
func ctlSockets(args []string, out io.Writer) error {
	f := newFlags("sockets")
	asJSON := f.Bool("json", false, "print JSON")
	wait := f.Duration("wait", 0, "how long to wait until nothing is left")
	if _, err := parse(f, args); err != nil {
		return err
	}
	o := sockdiag.Options{ExcludePIDs: rousePIDs(), AllNamespaces: true, IgnoreConnecting: true, Pipes: true, Unlisted: true}
	var left socketsLeft
	var err error
	if left.Left, err = lookOrWait(o, *wait); errors.Is(err, fs.ErrPermission) {
		fmt.Fprintf(os.Stderr, "rousectl: only the sockets that the kernel lists in this network namespace: %v\n", err)
		o.AllNamespaces, o.Pipes, o.Unlisted = false, false, false
		left.Left, err = lookOrWait(o, *wait)
	}
	if err != nil {
		return err
	}
	left.Summary = sockdiag.Summarize(left.Left, socketOwner)
	if err := show(out, *asJSON, left, func() { left.print(out) }); err != nil {
		return err
	}
	if n := len(left.Left); n > 0 {
		return fmt.Errorf("%d sockets and pipes still hold something", n)
	}
	return nil
}

func lookOrWait(o sockdiag.Options, wait time.Duration) ([]sockdiag.Socket, error) {
	ins, err := sockdiag.New(o)
	if err != nil {
		return nil, err
	}
	defer ins.Close()
	if wait > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		left, err := ins.Wait(ctx, sockdiag.WaitOptions{})
		if !errors.Is(err, context.DeadlineExceeded) {
			return left, err
		}
	}
	// Also after a wait: it may have cut the only look short, and nothing seen is not nothing left.
	return ins.Busy(context.Background())
}

func (l *socketsLeft) print(out io.Writer) {
	for i := range l.Left {
		s := &l.Left[i]
		fmt.Fprintf(out, "%s, for %v\n", s, time.Since(s.Since).Round(time.Millisecond))
	}
	for _, s := range l.Summary {
		if s.Owner == "" {
			s.Owner = "nobody"
		}
		fmt.Fprintf(out, "%s: %d, unread %d, unsent %d, queued %d\n", s.Owner, s.Sockets, s.Unread, s.Unsent, s.Queued)
	}
}

// rousePIDs are this process and, if it is rouse too, the one that would drain: what the two say to each other must
// not count.
func rousePIDs() []int {
	pids := []int{os.Getpid()}
	own, err := os.Readlink("/proc/self/exe")
	if first, err2 := os.Readlink("/proc/1/exe"); err == nil && err2 == nil && first == own {
		pids = append(pids, 1)
	}
	return pids
}

// socketOwner is the service, as the cgroup that the process is in tells, or the process.
func socketOwner(s *sockdiag.Socket) string {
	if s.PID == 0 {
		return ""
	}
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", s.PID))
	if _, path, ok := strings.Cut(string(text), "/services/"); ok {
		name, _, _ := strings.Cut(path, "/")
		return strings.TrimSuffix(name, "\n")
	}
	return fmt.Sprintf("%s[%d]", s.Comm, s.PID)
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
