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
	"time"

	"golang.org/x/sys/unix"

	"rouse/control"
)

type guest struct {
	id    string
	start time.Time
}

func (g *guest) Quiesce(context.Context, control.QuiesceOptions) (json.RawMessage, int, error) {
	return json.RawMessage(`{"phase":"ready"}`), 1, nil
}
func (g *guest) Release(context.Context) (json.RawMessage, error) { return json.RawMessage(`{}`), nil }
func (g *guest) Resumed(context.Context, control.Resume) error    { return nil }
func (g *guest) Report() json.RawMessage                          { return json.RawMessage(`{}`) }
func (g *guest) Services() any                                    { return []string{} }
func (g *guest) Watchers() any                                    { return []string{} }
func (g *guest) Frozen() bool                                     { return false }
func (g *guest) Log(string, int) []string                         { return nil }

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
	for _, m := range []string{"failover", "net_failover", "virtio_net"} {
		if err := load("/" + m + ".ko.xz"); err != nil {
			fmt.Println("guest: module", m, err)
		}
	}
	if err := linkUp("eth0"); err != nil {
		fmt.Println("guest: link up:", err)
	}
	id := make([]byte, 16)
	rand.Read(id)
	s := control.NewServer(&guest{hex.EncodeToString(id), time.Now()}, control.ServerOptions{Version: "test", Log: func(f string, a ...any) { fmt.Printf(f+"\n", a...) }})
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

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", unix.MODULE_INIT_COMPRESSED_FILE)
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
