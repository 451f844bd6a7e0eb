package vmm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestArgs(t *testing.T) {
	base := func() Config { return Config{Kernel: "/k", Accel: "tcg"} }
	for _, c := range []struct {
		name   string
		change func(*Config)
		memory string
		want   string // a part of the command line
	}{
		{"defaults", func(*Config) {}, "", "-machine q35 -accel tcg -cpu max -smp 1 -m 256M -kernel /k"},
		{"nothing gets out", func(*Config) {}, "", "-netdev user,id=net0,restrict=on -device"},
		{"outbound", func(c *Config) { c.Outbound = true }, "", "-netdev user,id=net0 -device"},
		{"forwards", func(c *Config) { c.Forwards = []Forward{{"", 0, 80}, {"127.0.0.2", 8443, 443}} }, "",
			"restrict=on,hostfwd=tcp:127.0.0.1:0-:80,hostfwd=tcp:127.0.0.2:8443-:443"},
		{"tap", func(c *Config) { c.Tap = "tap7" }, "", "-netdev tap,id=net0,script=no,downscript=no,vnet_hdr=off,ifname=tap7 -device"},
		{"hub", func(c *Config) { c.hub = true }, "", "-netdev user,id=user0,restrict=on -netdev hubport,hubid=0,id=port0,netdev=user0 -netdev hubport,hubid=0,id=net0 -device"},
		{"disk", func(c *Config) { c.Disks = []Disk{{Path: "/d,d", Format: "qcow2", ReadOnly: true}} }, "",
			"-drive if=none,id=disk0,format=qcow2,read-only=on,file=/d,,d -device virtio-blk-pci,drive=disk0,serial=disk0"},
		{"generation id", func(c *Config) { c.GUID = "auto" }, "", "-device vmgenid,guid=auto"},
		{"capture with a comma", func(c *Config) { c.Capture = "/a,b" }, "", "file=/a,,b"},
		{"shared memory of a source", func(c *Config) {}, "/m", "share=on,mem-path=/m -machine memory-backend=pc.ram"},
		{"private memory of a clone", func(c *Config) { c.Incoming = "/s" }, "/m", "share=off,mem-path=/m -machine memory-backend=pc.ram -incoming defer"},
		{"paused and extra", func(c *Config) { c.Paused, c.Extra = true, []string{"-x", "y"} }, "", "-S -x y"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := base()
			c.change(&config)
			config, err := config.withDefaults()
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(config.args(c.memory), " "); !strings.Contains(got, c.want) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestConfigErrors(t *testing.T) {
	for want, c := range map[string]Config{
		`vm "a": no kernel`:                                                                 {Name: "a"},
		`vm "a": forward of host port 5: no guest port`:                                     {Name: "a", Kernel: "k", Forwards: []Forward{{"", 5, 0}}},
		`vm "a": disk d: format ""; use raw or qcow2`:                                       {Name: "a", Kernel: "k", Disks: []Disk{{Path: "d"}}},
		`vm "a": forwards need the user-mode network, its NIC is bound to the TAP device t`: {Name: "a", Kernel: "k", Tap: "t", Forwards: []Forward{{"", 5, 6}}},
	} {
		if _, err := c.withDefaults(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestParseForwards(t *testing.T) {
	const info = "Hub -1 (net0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n" +
		"  TCP[HOST_FORWARD]  14       127.0.0.1 40123       10.0.2.15    80     0     0\r\n" +
		"  TCP[ESTABLISHED]   15       127.0.0.1 40123       10.0.2.15    80     0     0\r\n" +
		"  TCP[HOST_FORWARD]  x        127.0.0.1 99999       10.0.2.15    80     0     0\r\n"
	if got := parseForwards(info); !reflect.DeepEqual(got, []Forward{{"127.0.0.1", 40123, 80}}) {
		t.Errorf("got %v", got)
	}
}

// scriptedQMP is a monitor that says hello and then what answer gives for each line.
func scriptedQMP(t *testing.T, answer func(line string) string) (*qmp, chan Event, error) {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	go func() {
		fmt.Fprint(theirs, `{"QMP": {"version": {}, "capabilities": []}}`+"\r\n")
		buf := make([]byte, 4096)
		for {
			n, err := theirs.Read(buf)
			if err != nil {
				return
			}
			fmt.Fprint(theirs, answer(string(buf[:n])))
		}
	}()
	events := make(chan Event, 10)
	q, err := newQMP(t.Context(), ours, func(e Event) { events <- e })
	return q, events, err
}

func id(line string) string {
	i := strings.LastIndex(line, `"id":"`)
	return strings.Split(line[i+len(`"id":"`):], `"`)[0]
}

func TestQMP(t *testing.T) {
	q, events, err := scriptedQMP(t, func(line string) string {
		switch {
		case strings.Contains(line, "bad"):
			return fmt.Sprintf(`{"id": %q, "error": {"class": "GenericError", "desc": "no"}}`+"\r\n", id(line))
		case strings.Contains(line, "mute"):
			return ""
		}
		return `{"event": "STOP", "timestamp": {}}` + "\r\n" + `{"return": 5, "id": "0"}` + "\r\n" +
			fmt.Sprintf(`{"return": {"running": true}, "id": %q}`+"\r\n", id(line))
	})
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Running bool }
	if err := q.do(t.Context(), "query-status", nil, &got); err != nil || !got.Running {
		t.Errorf("got %+v, %v", got, err)
	}
	if e := <-events; e.Name != "STOP" {
		t.Errorf("got %+v", e)
	}
	var qe *QMPError
	if err := q.do(t.Context(), "bad", nil, nil); !errors.As(err, &qe) || err.Error() != "qmp bad: no" {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.do(ctx, "mute", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	q.conn.Close()
	<-q.done
	if err := q.do(t.Context(), "late", nil, nil); err == nil {
		t.Error("a closed monitor answered")
	}
}

func FuzzQMP(f *testing.F) {
	f.Add([]byte(`{"QMP": {}}` + "\n" + `{"event": "MIGRATION", "data": {"status": "completed"}}` + "\n" + `{"return": {}, "id": "1"}` + "\n"))
	f.Add([]byte(`{"QMP": {}}` + "\n" + `{"QMP": {}}` + "\n" + `{"error": {"class": 1}}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, theirs := net.Pipe()
		go func() { theirs.Write(data); theirs.Close() }()
		vm := &VM{changed: make(chan struct{})}
		q := &qmp{conn: ours, onEvent: vm.event, waiting: map[string]chan qmpMessage{"1": make(chan qmpMessage, 1)}, done: make(chan struct{})}
		q.read(make(chan struct{}))
		parseForwards(string(data))
	})
}

// needQEMU skips where QEMU is missing: the tests that need it run the machine itself.
func needQEMU(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("needs QEMU:", err)
	}
}

// TestStartErrors: QEMU's own words are in the error, and nothing is left running.
func TestStartErrors(t *testing.T) {
	needQEMU(t)
	kernel := filepath.Join(t.TempDir(), "kernel")
	snapshot := filepath.Join(t.TempDir(), "snapshot")
	for _, path := range []string{kernel, snapshot} {
		if err := os.WriteFile(path, probeKernel, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		config Config
		want   string
	}{
		{"no kernel file", Config{Kernel: "/nowhere/kernel"}, "could not open kernel file"},
		{"bad machine", Config{Kernel: kernel, Machine: "pdp11"}, "unsupported machine type"},
		{"bad generation id", Config{Kernel: kernel, GUID: "x"}, "vmgenid,guid=x: "},
		{"no snapshot", Config{Kernel: kernel, Incoming: "/nowhere/snapshot"}, "open /nowhere/snapshot: no such file"},
		{"not a snapshot", Config{Kernel: kernel, Incoming: snapshot}, "Not a migration stream"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.config.Accel, c.config.Dir = "tcg", t.TempDir()
			vm, err := Start(t.Context(), c.config)
			if err == nil {
				vm.Close()
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
}

// TestLongDir: the run directory's path is longer than a socket address.
func TestLongDir(t *testing.T) {
	needQEMU(t)
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40), "with, comma")
	kernel := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(kernel, probeKernel, 0o600); err != nil {
		t.Fatal(err)
	}
	vm, err := Start(t.Context(), Config{Kernel: kernel, Accel: "tcg", Dir: dir, Paused: true})
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	// The port is there; nobody speaks in the guest.
	if _, err := vm.Control(ctx); err == nil || !strings.Contains(err.Error(), "timed out") {
		t.Errorf("got %v, want a time-out of the sync", err)
	}
	if err := vm.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-vm.Exited():
	default:
		t.Error("QEMU runs after Close")
	}
	if err := vm.Stop(t.Context()); err == nil {
		t.Error("a closed VM was stopped")
	}
}

// TestDiesWithItsParent: a test that ends badly leaves no QEMU behind.
func TestDiesWithItsParent(t *testing.T) {
	needQEMU(t)
	if dir := os.Getenv("ROUSE_TEST_CHILD"); dir != "" {
		vm, err := Start(context.Background(), Config{Kernel: filepath.Join(dir, "kernel"), Accel: "tcg", Dir: filepath.Join(dir, "run"), Paused: true})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(vm.PID())
		os.Exit(7) // no Close
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "kernel"), probeKernel, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDiesWithItsParent$")
	cmd.Env = append(os.Environ(), "ROUSE_TEST_CHILD="+dir)
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 7 {
		t.Fatalf("child: %v, %s", cmd.ProcessState, out)
	}
	pid := strings.TrimSpace(string(out))
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		// The orphan is gone, or a zombie until whoever inherited it looks.
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
	}
	t.Errorf("QEMU, pid %s, outlives its parent", pid)
}

// TestCopySparse: data is copied, holes stay holes.
func TestCopySparse(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "to")
	f, err := os.Create(from)
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	for _, at := range []int64{0, 5 << 20, size - 3} {
		if _, err := f.WriteAt([]byte("abc"), at); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	if err := copySparse(from, to); err != nil {
		t.Fatal(err)
	}
	want, _ := os.ReadFile(from)
	got, err := os.ReadFile(to)
	if err != nil || len(got) != size || string(got) != string(want) {
		t.Errorf("the copy of %d bytes differs, %v", len(got), err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(to, &st); err != nil || st.Blocks > 1000 {
		t.Errorf("%d blocks of 512 bytes used, %v; want few", st.Blocks, err)
	}
}

func TestNoQEMU(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := Start(t.Context(), Config{Kernel: "k", Accel: "tcg"}); err == nil || !strings.Contains(err.Error(), "qemu-system-x86)") {
		t.Errorf("%v, want what to install", err)
	}
}
