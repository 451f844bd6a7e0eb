package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rouse/control"
)

// VM is a running QEMU. Its methods are safe for concurrent use.
type VM struct {
	c       Config // with defaults
	args    []string
	tempDir bool
	memory  string // file that is mapped shared as the guest's memory, or ""
	mapped  bool   // the snapshot that it comes from has its memory in a file of its own
	cmd     *exec.Cmd
	qmp     *qmp

	exited  chan struct{} // closed when QEMU is gone
	waitErr error         // how it ended, set before

	mu        sync.Mutex
	migration string        // last status told by an event
	stopped   bool          // by a STOP event without RESUME since
	changed   chan struct{} // closed and replaced when an event arrives
	closing   sync.Once
}

// Start runs QEMU and returns when the guest runs: from its kernel's first instruction, or from where the
// snapshot left it. On an error nothing is left running; QEMU's own words are in it. ctx bounds the
// start only. A VM that is not closed dies with this process, unless it was started with Detach.
func Start(ctx context.Context, c Config) (*VM, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	if c.Accel == "" {
		c.Accel = "tcg"
		if ProbeKVM(ctx) == nil {
			c.Accel = "kvm"
		}
	}
	vm := &VM{c: c, exited: make(chan struct{}), changed: make(chan struct{})}
	if err := vm.prepare(); err != nil {
		vm.removeTemp()
		return nil, err
	}
	if err := vm.launch(ctx); err != nil {
		err = vm.blame(err) // from a log that may go with Close
		vm.Close()
		return nil, fmt.Errorf("start vm %s: %w", c.Name, err)
	}
	return vm, nil
}

// prepare makes the run directory and decides where memory is.
func (vm *VM) prepare() (err error) {
	if vm.c.Dir == "" {
		if vm.c.Dir, err = os.MkdirTemp("", "rouse-vm-"); err != nil {
			return err
		}
		vm.tempDir = true
	}
	if err := os.MkdirAll(vm.c.Dir, 0o700); err != nil {
		return err
	}
	for _, stale := range []string{qmpSocket, controlSocket, memoryFile} {
		if err := os.Remove(vm.path(stale)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	file := ""
	if vm.c.Incoming != "" {
		if _, err := os.Stat(vm.c.Incoming + memorySuffix); err == nil {
			file, vm.mapped = vm.c.Incoming+memorySuffix, true
		}
	} else if vm.c.MapMemory {
		file = vm.path(memoryFile)
		vm.memory = file
	}
	if err := vm.overlayDisks(); err != nil {
		return err
	}
	vm.args = vm.c.args(file)
	return nil
}

func (vm *VM) overlayDisks() error {
	for i, d := range vm.c.Disks {
		if !d.overlay {
			continue
		}
		path := vm.path(fmt.Sprintf("disk%d.qcow2", i))
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := createOverlay(path, d); err != nil {
			return err
		}
		vm.c.Disks[i] = Disk{Path: path, Format: "qcow2"}
	}
	return nil
}

func (vm *VM) path(name string) string { return filepath.Join(vm.c.Dir, name) }

// launch starts the process, connects the monitor and restores the snapshot if there is one.
func (vm *VM) launch(ctx context.Context) error {
	ours, theirs, err := socketPair()
	if err != nil {
		close(vm.exited)
		return err
	}
	err = vm.spawn(theirs)
	theirs.Close()
	if err != nil {
		ours.Close()
		close(vm.exited)
		return err
	}
	if vm.qmp, err = newQMP(ctx, ours, vm.event); err != nil {
		ours.Close()
		return err
	}
	if vm.c.check != nil {
		if err := vm.c.check(ctx, vm); err != nil {
			return err
		}
	}
	if vm.c.Incoming == "" {
		return nil
	}
	return vm.restore(ctx)
}

// spawn starts QEMU on a thread of its own that lives as long as QEMU does: the death signal is tied to the
// thread which forked, not to the process (prctl(2), PR_SET_PDEATHSIG).
func (vm *VM) spawn(monitor *os.File) error {
	log, err := os.Create(vm.path(qemuLog))
	if err != nil {
		return err
	}
	defer log.Close()
	vm.cmd = exec.Command("qemu-system-x86_64", vm.args...)
	vm.cmd.Dir = vm.c.Dir
	vm.cmd.Stdout, vm.cmd.Stderr = log, log
	vm.cmd.ExtraFiles = []*os.File{monitor}
	vm.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if vm.c.Detach {
		vm.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := vm.cmd.Start()
		if errors.Is(err, exec.ErrNotFound) {
			err = fmt.Errorf("%w; install QEMU (Debian: qemu-system-x86)", err)
		}
		started <- err
		if err == nil {
			vm.waitErr = vm.cmd.Wait()
			close(vm.exited)
		}
	}()
	return <-started
}

// socketPair gives our end as a connection and the other as a file for the child.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "qmp"), os.NewFile(uintptr(fds[1]), "qmp")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

// event notes what QEMU tells. Called by the monitor's reader.
func (vm *VM) event(e Event) {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	switch e.Name {
	case "STOP":
		vm.stopped = true
	case "RESUME":
		vm.stopped = false
	case "MIGRATION":
		var data struct {
			Status string `json:"status"`
		}
		if json.Unmarshal(e.Data, &data) == nil {
			vm.migration = data.Status
		}
	}
	close(vm.changed)
	vm.changed = make(chan struct{})
}

// gone is true if the monitor is closed: QEMU has ended or is about to.
func (vm *VM) gone() bool {
	select {
	case <-vm.qmp.done:
		return true
	default:
		return false
	}
}

// blame adds QEMU's last words to an error if QEMU is gone, and waits a moment for it to go if its
// monitor is closed already.
func (vm *VM) blame(err error) error {
	if vm.cmd == nil || vm.cmd.Process == nil || vm.qmp != nil && !vm.gone() {
		return err
	}
	select {
	case <-vm.exited:
	case <-time.After(time.Second):
		return err
	}
	words := lastWords(vm.path(qemuLog))
	if words == "" {
		return fmt.Errorf("%w (QEMU: %v)", err, vm.waitErr)
	}
	return fmt.Errorf("%w (QEMU: %v: %s)", err, vm.waitErr, words)
}

// lastWords gives the end of QEMU's log in one line.
func lastWords(path string) string {
	data, _ := os.ReadFile(path)
	if len(data) > 1000 {
		data = data[len(data)-1000:]
	}
	return strings.Join(strings.FieldsFunc(strings.TrimSpace(string(data)), func(r rune) bool { return r == '\n' }), "; ")
}

// QMP executes a monitor command; args and result may be nil. A *QMPError is QEMU's refusal.
func (vm *VM) QMP(ctx context.Context, command string, args, result any) error {
	return vm.qmp.do(ctx, command, args, result)
}

// Control connects to the guest's control channel and finds its place in it. It waits until the guest
// answers or ctx ends. The port takes one client at a time: another one waits in line.
func (vm *VM) Control(ctx context.Context) (*control.Client, error) {
	c, err := vm.dialControl(ctx)
	if err != nil {
		return nil, err
	}
	synced := make(chan error, 1)
	go func() { synced <- c.Sync(ctx) }()
	select {
	case err = <-synced:
	case <-vm.exited:
		err = errors.New("the guest is gone")
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("control of vm %s: %w", vm.c.Name, err)
	}
	return c, nil
}

// dialControl connects and does not wait for the guest.
func (vm *VM) dialControl(ctx context.Context) (*control.Client, error) {
	return control.DialUnix(ctx, vm.path(controlSocket))
}

// Forwards gives the forwards with the host ports that QEMU has chosen where Config said 0.
func (vm *VM) Forwards(ctx context.Context) ([]Forward, error) {
	var info string
	args := map[string]any{"command-line": "info usernet"}
	if err := vm.QMP(ctx, "human-monitor-command", args, &info); err != nil {
		return nil, err
	}
	return parseForwards(info), nil
}

// Cont lets the guest run.
func (vm *VM) Cont(ctx context.Context) error { return vm.QMP(ctx, "cont", nil, nil) }

// Stop holds the guest's CPUs.
func (vm *VM) Stop(ctx context.Context) error { return vm.QMP(ctx, "stop", nil, nil) }

// Console is the file that the guest's first serial port is written to.
func (vm *VM) Console() string { return vm.path(consoleFile) }

// Dir is the run directory.
func (vm *VM) Dir() string { return vm.c.Dir }

// Args is QEMU's command line without its name.
func (vm *VM) Args() []string { return append([]string(nil), vm.args...) }

// Exited is closed when QEMU is gone, for whatever reason.
func (vm *VM) Exited() <-chan struct{} { return vm.exited }

// PID is QEMU's process id.
func (vm *VM) PID() int { return vm.cmd.Process.Pid }

// Detach lets go of a VM that was started with Detach: it goes on without this process, and Close does
// nothing any more.
func (vm *VM) Detach() {
	vm.closing.Do(func() { vm.qmp.conn.Close() })
}

// quitTime is how long QEMU has to quit by itself: its capture and log are complete then.
const quitTime = 5 * time.Second

// Close ends QEMU if it still runs and waits for its end. The guest is not asked: shut it down first if it has
// something to save. A temporary run directory is removed.
func (vm *VM) Close() error {
	vm.closing.Do(vm.shut)
	return nil
}

func (vm *VM) shut() {
	if vm.qmp != nil {
		ctx, cancel := context.WithTimeout(context.Background(), quitTime)
		defer cancel()
		_ = vm.QMP(ctx, "quit", nil, nil) // killed below if it does not
		select {
		case <-vm.exited:
		case <-ctx.Done():
		}
		vm.qmp.conn.Close()
	}
	if vm.cmd != nil && vm.cmd.Process != nil {
		_ = vm.cmd.Process.Kill() // no harm if it has been waited for
	}
	<-vm.exited
	vm.removeTemp()
}

func (vm *VM) removeTemp() {
	if vm.tempDir {
		os.RemoveAll(vm.c.Dir)
	}
}
