//go:build vm

package vmm

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"rouse/control"
)

// out is the folder with kernels/: $ROUSE_OUT, else out/ of this repository.
func out(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("ROUSE_OUT"); dir != "" {
		return dir
	}
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "out")
}

func kernel(t testing.TB, release string) string {
	t.Helper()
	path := filepath.Join(out(t), "kernels", release, "vmlinuz")
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no kernel to boot: %v (make kernels)", err)
	}
	return path
}

// netModules bring up the NIC; in the order of loading.
var netModules = []string{"net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net"}

// testInitrd builds testdata/guest and packs it as /init, with modules and more files.
func testInitrd(t testing.TB, modules []string, files map[string][]byte) string {
	t.Helper()
	return testInitrdFor(t, "6.12", modules, files)
}

func testInitrdFor(t testing.TB, release string, modules []string, files map[string][]byte) string {
	t.Helper()
	var b bytes.Buffer
	cpio(&b, "dev", 0o40755, 0, 0, nil)
	cpio(&b, "dev/console", 0o20600, 5, 1, nil)
	cpio(&b, "dev/null", 0o20666, 1, 3, nil)
	cpio(&b, "init", 0o100755, 0, 0, build(t, "build", "./testdata/guest"))
	cpio(&b, "modules", 0o40755, 0, 0, nil)
	for i, m := range modules {
		cpio(&b, fmt.Sprintf("modules/%02d", i), 0o100644, 0, 0, module(t, release, m))
	}
	for name, data := range files {
		cpio(&b, name, 0o100755, 0, 0, data)
	}
	cpio(&b, "TRAILER!!!", 0, 0, 0, nil)
	path := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// built keeps binaries for the other tests of a run.
var built = map[string][]byte{}

// build runs "go build" or "go test -c" and gives the static binary.
func build(t testing.TB, args ...string) []byte {
	t.Helper()
	key := strings.Join(args, " ")
	if built[key] == nil {
		built[key] = buildOnce(t, args...)
	}
	return built[key]
}

func buildOnce(t testing.TB, args ...string) []byte {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "bin")
	pkg := args[len(args)-1]
	args = append(args[:len(args)-1:len(args)-1], "-ldflags=-s -w", "-o", bin, pkg)
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %q: %v\n%s", args, err, msg)
	}
	data, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// module reads a module; those of 6.12 are compressed.
func module(t testing.TB, release, name string) []byte {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(out(t), "kernels", release, "modules/lib/modules/*/kernel", name+".ko*"))
	if len(found) != 1 {
		t.Fatalf("module %s: found %q", name, found)
	}
	data, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// cpio appends one newc entry (Documentation/driver-api/early-userspace/buffer-format.rst).
func cpio(b *bytes.Buffer, name string, mode, major, minor uint32, data []byte) {
	fmt.Fprintf(b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", b.Len(), mode, 0, 0, 1, 0,
		len(data), 0, 0, major, minor, len(name)+1, 0)
	pad := func() { b.Write(make([]byte, -b.Len()&3)) }
	b.WriteString(name + "\x00")
	pad()
	b.Write(data)
	pad()
}

// testContext bounds a whole VM test: an emulated boot takes seconds, on a loaded machine many.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func start(t *testing.T, ctx context.Context, c Config) *VM {
	t.Helper()
	vm, err := Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		vm.Close()
		if t.Failed() {
			log, _ := os.ReadFile(vm.Console())
			t.Logf("console of %s:\n%s", c.Name, log)
		}
	})
	return vm
}

func dial(t *testing.T, ctx context.Context, vm *VM) *control.Client {
	t.Helper()
	c, err := vm.Control(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func status(t *testing.T, ctx context.Context, c *control.Client) control.Status {
	t.Helper()
	var s control.Status
	if err := c.Do(ctx, "rouse-status", nil, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSnapshotClones boots a guest, snapshots it and brings two clones to life from it.
func TestSnapshotClones(t *testing.T) {
	for _, mapped := range []bool{false, true} {
		t.Run(fmt.Sprintf("mapped=%v", mapped), func(t *testing.T) { snapshotClones(t, mapped) })
	}
}

func snapshotClones(t *testing.T, mapped bool) {
	ctx := testContext(t)
	dir := t.TempDir()
	base := Config{
		Kernel: kernel(t, "6.12"), Initrd: testInitrd(t, netModules, nil), Cmdline: "console=ttyS0 quiet panic=-1", MemoryMiB: 192,
		MapMemory: mapped,
	}
	source := base
	source.Name, source.Dir, source.Capture = "source", filepath.Join(dir, "source"), filepath.Join(dir, "source.pcap")
	source.Forwards = []Forward{{GuestPort: 80}}
	source.GUID = "11111111-1111-4111-8111-111111111111"
	begin := time.Now()
	vm := start(t, ctx, source)
	c := dial(t, ctx, vm)
	t.Logf("boot to first sync: %v", time.Since(begin))
	if err := c.Do(ctx, "guest-ping", nil, nil); err != nil {
		t.Fatal(err)
	}
	id := status(t, ctx, c).Source

	snap := filepath.Join(dir, "snap", "state")
	if err := os.Mkdir(filepath.Dir(snap), 0o700); err != nil {
		t.Fatal(err)
	}
	begin = time.Now()
	if err := vm.Snapshot(ctx, snap); err != nil {
		t.Fatal(err)
	}
	t.Logf("snapshot: %v", time.Since(begin))
	logSizes(t, filepath.Dir(snap))

	// The source goes on, on the same connection.
	if err := vm.Cont(ctx); err != nil {
		t.Fatal(err)
	}
	if got := status(t, ctx, c).Source; got != id {
		t.Errorf("source after snapshot: id %s, want %s", got, id)
	}
	for i := range 2 {
		clone := base
		clone.Name, clone.Dir, clone.Incoming = fmt.Sprint("clone", i), filepath.Join(dir, fmt.Sprint("clone", i)), snap
		clone.GUID = fmt.Sprintf("22222222-2222-4222-8222-%012d", i)
		begin := time.Now()
		vm := start(t, ctx, clone)
		running := time.Since(begin)
		c := dial(t, ctx, vm)
		if got := status(t, ctx, c).Source; got != id {
			t.Errorf("clone %d: id %s, want %s", i, got, id)
		}
		t.Logf("clone: running after %v, answers after %v", running, time.Since(begin))
	}
	testCapture(t, ctx, vm)
	cloneOfClone(t, ctx, base, snap, id)
}

// cloneOfClone: a clone can be snapshot too, whether its memory is mapped or not.
func cloneOfClone(t *testing.T, ctx context.Context, base Config, snap, id string) {
	again := filepath.Join(t.TempDir(), "again")
	base.Name, base.Incoming, base.GUID = "parent", snap, ""
	if _, err := Start(ctx, base); err == nil || !strings.Contains(err.Error(), "vmgenid") {
		t.Errorf("a machine without the snapshot's generation device: %v, want QEMU's words", err)
	}
	base.GUID = "auto"
	parent := start(t, ctx, base)
	dial(t, ctx, parent).Close()
	if err := parent.Snapshot(ctx, again); err != nil {
		t.Fatal(err)
	}
	parent.Close()
	base.Name, base.Incoming = "child", again
	if got := status(t, ctx, dial(t, ctx, start(t, ctx, base))).Source; got != id {
		t.Errorf("clone of a clone: id %s, want %s", got, id)
	}
}

// testCapture knocks at the forwarded port: the network asks for the guest's MAC, and the question is in
// the capture.
func testCapture(t *testing.T, ctx context.Context, vm *VM) {
	forwards, err := vm.Forwards(ctx)
	if err != nil || len(forwards) != 1 || forwards[0].HostPort == 0 || forwards[0].GuestPort != 80 {
		t.Fatalf("forwards: %v, %v: want one to port 80 from a port of the host", forwards, err)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", forwards[0].HostPort))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const header = 24 // of a pcap file
	for {
		fi, err := os.Stat(vm.c.Capture)
		if err == nil && fi.Size() > header {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("capture: %v, %v: want more than a header", fi, err)
		}
		time.Sleep(10 * time.Millisecond) // a growing file tells nobody
	}
}

func logSizes(t *testing.T, dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if fi, err := e.Info(); err == nil {
			t.Logf("%s: %d KiB", e.Name(), fi.Size()>>10)
		}
	}
}
