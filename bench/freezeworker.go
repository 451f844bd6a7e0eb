package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// freezeArg makes this program the guest's part of the freeze suite.
const freezeArg = "freeze-worker"

// Where things are in a guest of the freeze suite.
const (
	freezeSelf   = "/worker"
	freezeModule = "/brd.ko.xz"
	freezeDisk   = "/ext4.img" // what each file system begins as
	rouseSocket  = "/run/rouse/control.sock"
	qgaSocket    = "/run/qga.sock"
	systemBus    = "/run/dbus/system_bus_socket"
	systemdName  = "org.freedesktop.systemd1"
)

// syncAlone is a case that has nothing to thaw.
const syncAlone = "sync(2) alone"

// subject is one way to freeze and thaw. Both return when it has answered.
type subject struct {
	name         string
	freeze, thaw func() error
	frozen       func(bool) error // proves that what was to be frozen is, or is not
}

// freezeMain is `freeze-worker KIND SERVICES FILESYSTEMS,... ROUNDS`, in a guest of that kind. It freezes and thaws with
// each number of file systems mounted and prints what each took, by the guest's clock. Under rouse nothing of a guest but its
// PID 1 runs while it is frozen, so there the worker is run before each freeze, and the host asks.
func freezeMain(args []string) (err error) {
	kind := args[0]
	services, rounds, err := numbers(args[1], args[3])
	if err != nil {
		return err
	}
	w := &freezeWorker{kind: kind, services: services, rounds: rounds}
	if kind == "rouse" {
		return w.beforeRouse(args[2], rounds)
	}
	if err := w.all(args[2]); err != nil {
		w.say("BENCH error %v", err)
	}
	for { // as PID 1 it must not end
		time.Sleep(time.Hour)
	}
}

func (w *freezeWorker) all(filesystems string) error {
	if err := w.prepare(); err != nil {
		return err
	}
	for _, text := range strings.Split(filesystems, ",") {
		n, err := strconv.Atoi(text)
		if err == nil {
			err = w.measure(n)
		}
		if err != nil {
			return fmt.Errorf("%d file systems: %w", n, err)
		}
	}
	w.say("BENCH end 0 -")
	return nil
}

type freezeWorker struct {
	kind             string
	services, rounds int
	console          *os.File
	mounted          int
	subjects         []subject
}

func (w *freezeWorker) say(format string, args ...any) {
	if w.console != nil {
		fmt.Fprintf(w.console, format+"\r\n", args...)
	}
}

func (w *freezeWorker) prepare() (err error) {
	// As PID 1 there is nothing yet; under an init it is there, which is as good.
	for target, kind := range map[string]string{"/proc": "proc", "/dev": "devtmpfs", "/run": "tmpfs"} {
		if _, err := os.Stat(target + "/self"); w.kind == "qemu-ga" && err != nil {
			_ = os.MkdirAll(target, 0o755)
			if err := unix.Mount(kind, target, kind, 0, ""); err != nil {
				return fmt.Errorf("mount %s: %w", target, err)
			}
		}
	}
	if w.console, err = os.OpenFile("/dev/console", os.O_WRONLY|unix.O_NOCTTY, 0); err != nil {
		return err
	}
	if err := loadBrd(); err != nil {
		return fmt.Errorf("brd: %w", err)
	}
	switch w.kind {
	case "qemu-ga":
		return w.withGuestAgent()
	case "systemd":
		return w.withSystemd()
	}
	return fmt.Errorf("no kind %q", w.kind)
}

// loadBrd makes disks of memory, so that no speed of a host's disk is in the figures.
func loadBrd() error {
	f, err := os.Open(freezeModule)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "rd_nr=16 rd_size=4096", unix.MODULE_INIT_COMPRESSED_FILE)
	if err == unix.EEXIST {
		return nil
	}
	return err
}

// mount brings the number of file systems to n.
func (w *freezeWorker) mount(n int) error {
	for ; w.mounted < n; w.mounted++ {
		device, target := "/dev/ram"+strconv.Itoa(w.mounted), "/fs"+strconv.Itoa(w.mounted)
		if _, err := os.Stat(target); err == nil {
			continue // by a worker before this one
		}
		if err := copySparse(device, freezeDisk); err != nil {
			return err
		}
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(device, target, "ext4", 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", target, err)
		}
	}
	return nil
}

// copySparse leaves out what is zero, as the disk is.
func copySparse(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	zero := make([]byte, 4096)
	for at := 0; at < len(data); at += len(zero) {
		block := data[at:min(at+len(zero), len(data))]
		if slices.Equal(block, zero[:len(block)]) {
			continue
		}
		if _, err := f.WriteAt(block, int64(at)); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}

// dirty gives each file system something to write.
func (w *freezeWorker) dirty() error {
	for i := range w.mounted {
		if err := os.WriteFile(fmt.Sprintf("/fs%d/data", i), make([]byte, 65536), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// measure takes turns, as often as wanted and once more to warm up.
func (w *freezeWorker) measure(filesystems int) error {
	if err := w.mount(filesystems); err != nil {
		return err
	}
	for i := range w.rounds + 1 {
		for _, s := range w.subjects {
			if err := w.once(s, filesystems, i > 0); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	return nil
}

func (w *freezeWorker) once(s subject, filesystems int, counts bool) error {
	// A freeze right after a thaw is spared the grace periods of RCU that one by itself waits for (kernel/rcu/sync.c), and a
	// snapshot's comes by itself.
	time.Sleep(2 * time.Second)
	if err := w.dirty(); err != nil {
		return err
	}
	took := map[string]float64{}
	for _, half := range []struct {
		name   string
		do     func() error
		frozen bool
	}{{"freeze", s.freeze, true}, {"thaw", s.thaw, false}} {
		began := time.Now()
		if err := half.do(); err != nil {
			return fmt.Errorf("%s: %w", half.name, err)
		}
		took[half.name] = time.Since(began).Seconds() * 1000
		if err := s.frozen(half.frozen); err != nil {
			return fmt.Errorf("after %s: %w", half.name, err)
		}
	}
	for metric, ms := range took {
		if counts {
			w.say("FREEZE\t%s\t%d\t%d\t%s\t%.6f", s.name, w.services, filesystems, metric, ms)
		}
	}
	return nil
}

// agent is a connection that speaks the guest agent's protocol.
type agent struct {
	conn net.Conn
	r    *bufio.Reader
}

// dialAgent waits until somebody listens.
func dialAgent(path string) (*agent, error) {
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("unix", path)
		if err == nil {
			return &agent{conn, bufio.NewReader(conn)}, nil
		}
		if time.Now().After(end) {
			return nil, err
		}
	}
}

// ask is one command and its answer; result may be nil.
func (a *agent) ask(command string, result any) error {
	if _, err := fmt.Fprintf(a.conn, "{\"execute\":%q}\n", command); err != nil {
		return err
	}
	line, err := a.r.ReadBytes('\n')
	if err != nil {
		return err
	}
	var answer struct {
		Return json.RawMessage
		Error  *struct{ Desc string }
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		return fmt.Errorf("%s: %q: %w", command, line, err)
	}
	if answer.Error != nil {
		return fmt.Errorf("%s: %s", command, answer.Error.Desc)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Return, result)
}

// freezer is the commands that both rouse and QEMU's agent know. Each freeze has to answer with the file systems that there are.
func (w *freezeWorker) freezer(name string, a *agent) subject {
	count := func(command string) func() error {
		return func() error {
			n := 0
			if err := a.ask(command, &n); err != nil || n >= w.mounted {
				return err
			}
			return fmt.Errorf("%s: %d of %d file systems", command, n, w.mounted)
		}
	}
	return subject{name: name, freeze: count("guest-fsfreeze-freeze"), thaw: func() error { return a.ask("guest-fsfreeze-thaw", nil) },
		frozen: func(want bool) error {
			status := ""
			if err := a.ask("guest-fsfreeze-status", &status); err != nil || (status == "frozen") == want {
				return err
			}
			return errors.New("it is " + status)
		}}
}

// beforeRouse prepares one freeze, and prints what a question over the socket and its answer take, in ms: what rouse's report
// leaves out of the time that its asker waits.
func (w *freezeWorker) beforeRouse(filesystems string, rounds int) error {
	n, err := strconv.Atoi(filesystems)
	if err != nil {
		return err
	}
	if err := errors.Join(loadBrd(), w.mount(n), w.dirty()); err != nil {
		return err
	}
	a, err := dialAgent(rouseSocket)
	if err != nil {
		return err
	}
	var took []time.Duration
	for range rounds {
		began := time.Now()
		if err := a.ask("guest-ping", nil); err != nil {
			return err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	fmt.Println(took[rounds/2].Seconds() * 1000)
	return nil
}

func (w *freezeWorker) withGuestAgent() error {
	daemon := exec.Command("/usr/sbin/qemu-ga", "-m", "unix-listen", "-p", qgaSocket, "-t", "/run")
	daemon.Stderr = w.console
	if err := daemon.Start(); err != nil {
		return err
	}
	a, err := dialAgent(qgaSocket)
	if err != nil {
		return err
	}
	// What rouse does first, for file systems that cannot be frozen.
	sync := subject{name: syncAlone, freeze: func() error { unix.Sync(); return nil }, thaw: func() error { return nil }, frozen: func(bool) error { return nil }}
	w.subjects = []subject{w.freezer("qemu-ga", a), sync}
	return nil
}

// withSystemd freezes unit by unit, by method calls and by systemctl.
func (w *freezeWorker) withSystemd() error {
	bus, err := dialSystemd()
	if err != nil {
		return err
	}
	var units []string
	for i := range w.services {
		units = append(units, fmt.Sprintf("s%d.service", i))
	}
	call := func(method string) func() error {
		return func() error {
			for _, u := range units {
				if err := bus.call(systemdName, method, u, nil); err != nil {
					return err
				}
			}
			return nil
		}
	}
	frozen := func(want bool) error {
		for _, u := range units {
			text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup/system.slice", u, "cgroup.events"))
			if err != nil || strings.Contains(string(text), "frozen 1") != want {
				return errors.Join(err, fmt.Errorf("%s: %q", u, text))
			}
		}
		return nil
	}
	w.subjects = []subject{
		{name: "systemd", freeze: call("FreezeUnit"), thaw: call("ThawUnit"), frozen: frozen},
		{name: "systemctl", freeze: program("/bin/systemctl", append([]string{"freeze"}, units...)...),
			thaw: program("/bin/systemctl", append([]string{"thaw"}, units...)...), frozen: frozen},
	}
	return nil
}

// dialSystemd waits until systemd is on the bus: systemctl asks it there, too, to freeze.
func dialSystemd() (*busConn, error) {
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		bus, err := dialBus(systemBus)
		if err == nil {
			bus.path, bus.iface = "/org/freedesktop/systemd1", systemdName+".Manager"
			if err = bus.call(systemdName, "GetUnit", "s0.service", nil); err == nil {
				return bus, nil
			}
			bus.conn.Close()
		}
		if time.Now().After(end) {
			return nil, err
		}
	}
}

// program runs a command to its end.
func program(name string, args ...string) func() error {
	return func() error {
		cmd := exec.Command(name, args...)
		cmd.Stdin = nil
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
		}
		return nil
	}
}
