// Package vmtest boots rouse in real guests for tests: it builds the binaries and images that a test
// names, and starts QEMU with Debian's kernels, which fetch-kernels.sh has put into out/kernels.
//
// The tests themselves, with build tag vm, share what is expensive: binaries are built once a run, a
// baked snapshot serves every test that begins with a running guest.
package vmtest

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rouse/config"
	"rouse/control"
	"rouse/quiesce"
	"rouse/rootfs/image"
	"rouse/vmm"
)

// Kernels are the series that tests boot: 6.1 has its drivers as modules and no VMGENID driver, 6.12 has
// both built in.
var Kernels = []string{"6.1", "6.12"}

// Timeout bounds one test's guests. Machines are shared and emulation is slow; what works takes seconds.
const Timeout = 4 * time.Minute

// Lab holds what the tests of one run share.
type Lab struct {
	dir  string // binaries
	root string // of the repository
}

// Open builds the binaries into a temporary folder. Close removes it.
func Open() (*Lab, error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "rouse-vmtest-*")
	if err != nil {
		return nil, err
	}
	l := &Lab{dir, root}
	for _, args := range [][]string{
		{"build", "-o", l.Binary("init"), "./init"},
		{"build", "-o", l.Binary("webserver"), "./examples/webserver"},
		{"test", "-c", "-tags", "root", "-o", l.Binary("sysgenid.test"), "./genid/sysgenid"},
		{"test", "-c", "-tags", "root", "-o", l.Binary("sockdiag.test"), "./quiesce/sockdiag"},
	} {
		if err := l.goTool(args...); err != nil {
			l.Close()
			return nil, err
		}
	}
	return l, nil
}

// Close removes the binaries.
func (l *Lab) Close() error { return os.RemoveAll(l.dir) }

func (l *Lab) goTool(args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Dir = l.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, text)
	}
	return nil
}

// Binary is the path of a built program.
func (l *Lab) Binary(name string) string { return filepath.Join(l.dir, name) }

// Kernel is the folder of a kernel series. A test without kernels fails: `make test` fetches them first.
func (l *Lab) Kernel(t testing.TB, series string) string {
	t.Helper()
	dir := filepath.Join(l.root, "out", "kernels", series)
	if _, err := os.Stat(filepath.Join(dir, "release")); err != nil {
		t.Fatalf("no kernel %s: %v; run make kernels", series, err)
	}
	return dir
}

// testModules are what tests that run inside a guest want besides rouse's own modules: the hosts and
// links that they make. A guest loads them if its configuration names them.
var testModules = []string{"veth", "dummy", "bridge", "sch_netem", "sch_fq", "sch_tbf", "vsock_loopback"}

// Image builds an image folder: rouse as init, a configuration, and programs by their path in the guest.
func (l *Lab) Image(t testing.TB, series, configuration string, programs map[string]string) string {
	t.Helper()
	kernel, dir := l.Kernel(t, series), t.TempDir()
	spec := image.Spec{Init: l.Binary("init"), Config: []byte(configuration), ModulesDir: filepath.Join(kernel, "modules"),
		Optional: append(config.GuestModules(), testModules...), Compress: "none"}
	for path, source := range programs {
		spec.Files = append(spec.Files, image.File{Path: path, Source: source, Mode: 0o755})
	}
	f, err := os.Create(filepath.Join(dir, vmm.InitrdFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := image.Build(f, spec); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(kernel, "vmlinuz"), filepath.Join(dir, vmm.KernelFile)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, vmm.CmdlineFile), []byte("quiet\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Web is the example server as a service.
func (l *Lab) Web(t testing.TB, series string, arguments ...string) string {
	t.Helper()
	quoted := ""
	for _, a := range arguments {
		quoted += fmt.Sprintf(", %q", a)
	}
	configuration := fmt.Sprintf(`hostname = "web"

[quiesce]
timeout = "60s"

[adjust]
timeout = "60s"

[[service]]
name = "web"
exec = ["/usr/bin/webserver"%s]
ready = "notify"
`, quoted)
	return l.Image(t, series, configuration, map[string]string{"/usr/bin/webserver": l.Binary("webserver")})
}

// Bake makes a snapshot of an image with port 443 reachable.
func Bake(t testing.TB, img string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "snapshot")
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	_, err := vmm.Bake(ctx, vmm.BakeConfig{Image: img, Output: out, BootTimeout: 2 * time.Minute,
		VM: vmm.Config{Forwards: []vmm.Forward{{GuestPort: 443}}}})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Clone starts n clones of a snapshot that are READY, and ends them with the test.
func Clone(t testing.TB, snapshot string, n int) []*vmm.Clone {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	clones, err := vmm.StartClones(ctx, vmm.CloneConfig{Snapshot: snapshot, N: n, Capture: t.TempDir(), Timeout: 2 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, c := range clones {
				t.Logf("console of clone %d:\n%s", c.Index, Console(c.VM))
			}
		}
		_ = vmm.CloseAll(clones)
	})
	return clones
}

// Boot boots an image and ends it with the test.
func Boot(t testing.TB, img string, change func(*vmm.Config)) *vmm.VM {
	t.Helper()
	words, err := os.ReadFile(filepath.Join(img, vmm.CmdlineFile))
	if err != nil {
		t.Fatal(err)
	}
	c := vmm.Config{Kernel: filepath.Join(img, vmm.KernelFile), Initrd: filepath.Join(img, vmm.InitrdFile),
		Cmdline: strings.TrimSpace(string(words)) + " console=ttyS0 panic=-1", GUID: "auto"}
	if change != nil {
		change(&c)
	}
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	vm, err := vmm.Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console:\n%s", Console(vm))
		}
		vm.Close()
	})
	return vm
}

// Console is what the guest has printed.
func Console(vm *vmm.VM) string {
	text, err := os.ReadFile(vm.Console())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Guest is the control channel of a guest, with errors that end the test.
type Guest struct {
	t testing.TB
	c *control.Client
}

// Talk connects to a guest.
func Talk(t testing.TB, vm *vmm.VM) *Guest {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	c, err := vm.Control(ctx)
	if err != nil {
		t.Fatalf("%v; console:\n%s", err, Console(vm))
	}
	t.Cleanup(func() { c.Close() })
	return &Guest{t, c}
}

// Try executes a command.
func (g *Guest) Try(command string, args, result any) error {
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	return g.c.Do(ctx, command, args, result)
}

// Do executes a command that has to succeed.
func (g *Guest) Do(command string, args, result any) {
	g.t.Helper()
	if err := g.Try(command, args, result); err != nil {
		g.t.Fatal(err)
	}
}

// Wait waits until the guest is in one of the states and returns its status and last report.
func (g *Guest) Wait(states ...string) (control.Status, quiesce.Report) {
	g.t.Helper()
	var r control.WaitResult
	g.Do("rouse-wait", map[string]any{"states": states, "timeout-ms": 180000}, &r)
	return r.Status, Report(g.t, r.Report)
}

// Report decodes a report; none is the zero report.
func Report(t testing.TB, raw json.RawMessage) quiesce.Report {
	t.Helper()
	var r quiesce.Report
	if len(raw) == 0 {
		return r
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// Answer is what the example server says.
type Answer struct {
	Random     string `json:"random"`
	TicketKey  string `json:"ticket-key"`
	Requests   int    `json:"requests"`
	Generation uint32 `json:"generation"`
}

// Browser is one client with a connection that it keeps.
type Browser struct {
	client *http.Client
	url    string
	dials  int
}

// Browse makes a client for the server behind a host port.
func Browse(port uint16) *Browser {
	b := &Browser{url: fmt.Sprintf("https://127.0.0.1:%d/", port)}
	b.client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // the example's certificate is made at its start
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			b.dials++
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}}
	return b
}

// Dials is how many connections the client has made.
func (b *Browser) Dials() int { return b.dials }

// Get asks once.
func (b *Browser) Get() (Answer, error) {
	var a Answer
	resp, err := b.client.Get(b.url)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body) // to the end, so that the connection is kept
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(text, &a)
}
