//go:build vm

package vmm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rouse/control"
)

// small is a guest that only speaks over its serial port.
func small(t *testing.T, name string) Config {
	return Config{
		Name: name, Dir: filepath.Join(t.TempDir(), name), Kernel: kernel(t, "6.12"), Initrd: testInitrd(t, nil, nil),
		Cmdline: "console=ttyS0 quiet panic=-1", MemoryMiB: 192,
	}
}

// ran is what the test guest tells of itself.
type ran struct{ Switches, US, Goroutines int64 }

func ranOf(t *testing.T, ctx context.Context, c *control.Client) ran {
	t.Helper()
	var r ran
	if err := c.Do(ctx, "rouse-services", nil, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// portModules are what the port needs on kernel 6.1, where all of virtio is modules.
var portModules = []string{
	"drivers/virtio/virtio_ring", "drivers/virtio/virtio", "drivers/virtio/virtio_pci_legacy_dev", "drivers/virtio/virtio_pci_modern_dev",
	"drivers/virtio/virtio_pci", "drivers/char/virtio_console",
}

// TestSerial is about the port alone: all in one guest, as booting is what costs.
func TestSerial(t *testing.T) {
	t.Run("6.12", func(t *testing.T) { testSerial(t, small(t, "serial")) })
	t.Run("6.1", func(t *testing.T) {
		config := small(t, "serial")
		config.Kernel, config.Initrd = kernel(t, "6.1"), testInitrdFor(t, "6.1", portModules, nil)
		testSerial(t, config)
	})
}

func testSerial(t *testing.T, config Config) {
	ctx := testContext(t)
	vm := start(t, ctx, config)
	dial(t, ctx, vm).Close()
	t.Run("idle without a host", func(t *testing.T) { serialIdle(t, ctx, vm) })
	t.Run("1000 reconnects", func(t *testing.T) { serialReconnects(t, ctx, vm) })
	t.Run("client that never reads", func(t *testing.T) { serialMute(t, ctx, vm) })
	t.Run("half a line across a snapshot", func(t *testing.T) { serialHalfLine(t, ctx, vm, config) })
}

// serialIdle: a port without a host polls as readable for ever; the guest must sleep all the same.
func serialIdle(t *testing.T, ctx context.Context, vm *VM) {
	c := dial(t, ctx, vm)
	begin := time.Now()
	before := ranOf(t, ctx, c)
	c.Close()
	time.Sleep(2 * time.Second) // the time is the test: nothing must happen in it
	after := ranOf(t, ctx, dial(t, ctx, vm))
	took := time.Since(begin) // on a busy machine the questions take as long
	t.Logf("in %v without a host: %d context switches, %d us of CPU", took, after.Switches-before.Switches, after.US-before.US)
	if float64(after.Switches-before.Switches) > 500*took.Seconds() {
		t.Errorf("%d context switches in %v: the port is spun on", after.Switches-before.Switches, took)
	}
}

func serialReconnects(t *testing.T, ctx context.Context, vm *VM) {
	c := dial(t, ctx, vm)
	before := ranOf(t, ctx, c)
	c.Close()
	begin := time.Now()
	for i := range 1000 {
		conn, err := control.DialSocket(ctx, vm.path(controlSocket))
		if err != nil {
			t.Fatal(err)
		}
		switch i % 3 {
		case 0:
			fmt.Fprint(conn, `{"execute":"guest-`)
		case 1:
			fmt.Fprint(conn, "\xff{\"execute\":\"rouse-status\"}\n")
		default:
			c := control.NewClient(conn)
			if err := c.Sync(ctx); err != nil {
				t.Fatal(i, err)
			}
		}
		conn.Close()
	}
	t.Logf("1000 reconnects: %v", time.Since(begin))
	c = dial(t, ctx, vm)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) { // what the last clients asked may still run
		after := ranOf(t, ctx, c)
		if after.Goroutines <= before.Goroutines+5 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines in the guest, %d before", after.Goroutines, before.Goroutines)
		}
	}
}

// serialMute floods the guest with questions and reads no answer; the next client is served.
func serialMute(t *testing.T, ctx context.Context, vm *VM) {
	conn, err := control.DialSocket(ctx, vm.path(controlSocket))
	if err != nil {
		t.Fatal(err)
	}
	conn.SetWriteDeadline(time.Now().Add(3 * time.Second))
	line := []byte(strings.Repeat(`{"execute":"guest-info"}`+"\n", 100))
	sent := 0
	for range 1000 {
		n, err := conn.Write(line)
		sent += n
		if err != nil {
			break
		}
	}
	conn.Close()
	t.Logf("%d bytes of questions without reading an answer", sent)
	dial(t, ctx, vm).Close()
}

// serialHalfLine: the clone wakes with half a line of a client that only the source has, and its own client
// begins like libvirt's: guest-sync, without a 0xFF byte.
func serialHalfLine(t *testing.T, ctx context.Context, vm *VM, config Config) {
	conn, err := control.DialSocket(ctx, vm.path(controlSocket))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := control.NewClient(conn)
	if err := c.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, `{"execute":"guest-fsfreeze-`)
	snapshot := filepath.Join(t.TempDir(), "state")
	if err := vm.Snapshot(ctx, snapshot); err != nil {
		t.Fatal(err)
	}
	config.Name, config.Dir, config.Incoming = "clone", filepath.Join(t.TempDir(), "clone"), snapshot
	clone := start(t, ctx, config)
	raw, err := control.DialSocket(ctx, clone.path(controlSocket))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	deadline, _ := ctx.Deadline()
	raw.SetDeadline(deadline)
	fmt.Fprint(raw, `{"execute":"guest-sync","arguments":{"id":4711}}`+"\n")
	var got []byte
	for buf := make([]byte, 4096); !strings.Contains(string(got), `{"return":4711}`+"\n"); {
		n, err := raw.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	t.Logf("clone answered %q", got)
}

// TestControlInGuest runs the tests of package control in a guest: on its kernel, as its root, with vsock.
func TestControlInGuest(t *testing.T) {
	ctx := testContext(t)
	config := small(t, "tests")
	config.Initrd = testInitrd(t, []string{"net/vmw_vsock/vsock", "net/vmw_vsock/vmw_vsock_virtio_transport_common", "net/vmw_vsock/vsock_loopback"},
		map[string][]byte{"test": build(t, "test", "-c", "rouse/control")})
	config.Cmdline += " -- test -test.v -test.timeout=100s"
	vm := start(t, ctx, config)
	select {
	case <-vm.Exited():
	case <-ctx.Done():
		t.Fatal("the tests did not end")
	}
	console, err := os.ReadFile(vm.Console())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"guest: tests: <nil>", "--- PASS: TestVsock ", "--- PASS: TestVsockHearsTheHostOnly "} {
		if !strings.Contains(string(console), want) {
			t.Errorf("%q is not on the console", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", console)
	}
}

// TestSnapshotGivenUp: a snapshot whose context ends leaves no file, and the VM can be snapshot again.
func TestSnapshotGivenUp(t *testing.T) {
	ctx := testContext(t)
	vm := start(t, ctx, small(t, "givenup"))
	dial(t, ctx, vm).Close()
	dir := t.TempDir()
	over, cancel := context.WithCancel(ctx)
	cancel()
	if err := vm.Snapshot(over, filepath.Join(dir, "a")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want cancelled", err)
	}
	brief, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := vm.Snapshot(brief, filepath.Join(dir, "b")); err == nil {
		t.Log("the snapshot was quicker than 20 ms")
	} else if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
	for range 2 {
		if err := vm.Snapshot(ctx, filepath.Join(dir, "c")); err != nil {
			t.Fatal(err)
		}
		if err := vm.Cont(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := vm.Snapshot(ctx, filepath.Join(dir, "none", "c")); err == nil {
		t.Error("a snapshot into no folder")
	}
	// What cannot begin does not stop the guest.
	dial(t, ctx, vm).Close()
}
