// Command guest is the init of vmm's test guests: it serves the control protocol on the guest agent's port
// and does nothing else. Its boot id stands in for a VM's memory: clones of one snapshot share it.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"rouse/control"
)

type guest struct {
	control.Guest // nil: what the tests do not ask for
	id            string
	start         time.Time
	frozen        atomic.Bool
}

func (g *guest) Quiesce(context.Context, control.QuiesceOptions) (json.RawMessage, int, error) {
	g.frozen.Store(true)
	return json.RawMessage(`{"phase":"ready"}`), 1, nil
}
func (g *guest) Release(context.Context) (json.RawMessage, error) {
	g.frozen.Store(false)
	return json.RawMessage(`{}`), nil
}
func (g *guest) Resumed(context.Context, control.Resume) error { return nil }
func (g *guest) Reports() []json.RawMessage                    { return []json.RawMessage{[]byte(`{}`)} }

// Services tells how much the init has run so far.
func (g *guest) Services() any {
	var r unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &r)
	return map[string]int64{"switches": r.Nvcsw + r.Nivcsw, "us": unix.TimevalToNsec(r.Utime)/1000 + unix.TimevalToNsec(r.Stime)/1000, "goroutines": int64(runtime.NumGoroutine())}
}

func (g *guest) Watchers() any            { return []string{} }
func (g *guest) Frozen() bool             { return g.frozen.Load() }
func (g *guest) Log(string, int) []string { return nil }

// Status carries the boot id where the source of generations would stand.
func (g *guest) Status() control.Status {
	return control.Status{State: "running", Source: g.id, UptimeMS: time.Since(g.start).Milliseconds()}
}

func (g *guest) Shutdown(mode string) error {
	go unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	return nil
}

func main() {
	mount("devtmpfs", "/dev")
	mount("sysfs", "/sys")
	mount("proc", "/proc")
	loadAll("/modules")
	if len(os.Args) > 1 && os.Args[1] == "test" {
		runTests()
	}
	if err := linkUp("eth0"); err != nil {
		fmt.Println("guest: link up:", err)
	}
	id := make([]byte, 16)
	rand.Read(id)
	s := control.NewServer(&guest{id: hex.EncodeToString(id), start: time.Now()}, control.ServerOptions{Version: "test", Log: func(f string, a ...any) { fmt.Printf(f+"\n", a...) }})
	fmt.Println("guest: up")
	err := s.ServeSerial(context.Background(), "")
	fmt.Println("guest: serial:", err)
	select {}
}

func mount(fs, at string) {
	os.MkdirAll(at, 0o755)
	if err := unix.Mount(fs, at, fs, 0, ""); err != nil && err != unix.EBUSY {
		fmt.Println("guest: mount", at, err)
	}
}

// runTests runs a test binary that was packed beside this init, and switches off.
func runTests() {
	mount("tmpfs", "/tmp")
	cmd := exec.Command("/test", os.Args[2:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	fmt.Println("guest: tests:", cmd.Run())
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// loadAll loads modules in the order of their names.
func loadAll(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if err := load(dir + "/" + e.Name()); err != nil {
			fmt.Println("guest: module", e.Name(), err)
		}
	}
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", unix.MODULE_INIT_COMPRESSED_FILE)
	if err == unix.EINVAL || err == unix.EOPNOTSUPP { // a kernel that cannot, or a file that is not compressed
		err = unix.FinitModule(int(f.Fd()), "", 0)
	}
	return err
}

// linkUp makes the kernel send its first packets (IPv6 neighbour discovery), for the capture.
func linkUp(name string) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r)
}
