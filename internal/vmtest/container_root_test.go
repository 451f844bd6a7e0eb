//go:build root

package vmtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rouse/control"
)

// boxed starts /init as the first process of a container: namespaces of its own by unshare(1), a user namespace among them, an /etc of
// its own and a cgroup. Its control socket, device and state are below dir.
func boxed(t *testing.T, configuration string) (socket string, output *bytes.Buffer, done chan error) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("root is missing: cgroups for a container")
	}
	if _, err := exec.LookPath("unshare"); err != nil {
		t.Skip("unshare is missing: install Debian's util-linux")
	}
	dir := t.TempDir()
	init := filepath.Join(dir, "init")
	build := exec.Command("go", "build", "-o", init, "./init")
	build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	cgroup, err := os.MkdirTemp(cgroup2(t), "rouse-test-")
	if err != nil {
		t.Skipf("no cgroup of its own: %v", err)
	}
	socket = filepath.Join(dir, "control.sock")
	text := fmt.Sprintf("%s\n[control]\nserial = \"\"\nsocket = %q\n\n[sysgenid]\npath = %q\n", configuration, socket, filepath.Join(dir, "sysgenid"))
	if err := os.WriteFile(filepath.Join(dir, "rouse.toml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	script := `echo $$ > "$1/cgroup.procs" && exec unshare --user --map-root-user --pid --fork --kill-child --mount --mount-proc --net --uts --cgroup sh -c '
mount -t cgroup2 cgroup2 /sys/fs/cgroup && mount -t tmpfs etc /etc && cp "$1/rouse.toml" /etc/rouse.toml && mount -t tmpfs run /run && exec "$1/init"' sh "$2"`
	cmd := exec.Command("sh", "-c", script, "sh", cgroup, dir)
	output = &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done = make(chan error, 1)
	ended := make(chan struct{})
	go func() { done <- cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("output:\n%s", output)
		}
		removeCgroup(cgroup)
	})
	return socket, output, done
}

// cgroup2 is where the machine has cgroup v2.
func cgroup2(t *testing.T) string {
	t.Helper()
	mounts, _ := os.ReadFile("/proc/mounts")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	t.Skip("cgroup v2 is missing: it is mounted nowhere")
	return ""
}

// removeCgroup tries for as long as the kernel takes to forget the dead.
func removeCgroup(root string) {
	for range 100 {
		_ = filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				defer os.Remove(p)
			}
			return nil
		})
		out, _ := exec.Command("find", root, "-depth", "-type", "d").Output()
		for _, p := range strings.Fields(string(out)) {
			_ = os.Remove(p)
		}
		if _, err := os.Stat(root); err != nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// In a container rouse does what is its own, says what it leaves out, and adjusts when the host says that it is a copy.
func TestContainer(t *testing.T) {
	socket, output, done := boxed(t, `hostname = "box"

[[service]]
name = "main"
exec = ["/bin/sleep", "1000"]
`)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var c *control.Client
	for err := error(nil); c == nil; c, err = control.DialUnix(ctx, socket) {
		select {
		case err := <-done:
			t.Fatalf("it has ended: %v\n%s", err, output)
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	defer c.Close()
	do := func(command string, args, result any) {
		t.Helper()
		if err := c.Do(ctx, command, args, result); err != nil {
			t.Fatalf("%s: %v", command, err)
		}
	}
	var r control.WaitResult
	do("rouse-wait", map[string]any{"states": []string{"running"}, "timeout-ms": 120000}, &r)
	do("rouse-resumed", map[string]any{"generation": "copy-1", "identity": map[string]any{"hostname": "copy"}}, nil)
	do("rouse-wait", map[string]any{"states": []string{"running", "held"}, "timeout-ms": 120000}, &r)
	report := Report(t, r.Report)
	if r.Status.Generation != 1 || r.Status.Gate != "open" || report.Outcome != "open" {
		t.Errorf("generation %d, gate %s, report %+v", r.Status.Generation, r.Status.Gate, report)
	}
	_ = c.Do(ctx, "guest-shutdown", map[string]string{"mode": "powerdown"}, nil)
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-ctx.Done():
		t.Error("it does not end")
	}
	for _, want := range []string{"container: a pid namespace of its own", "left out: network", "left out: root="} {
		if !strings.Contains(output.String(), want) {
			t.Errorf("it does not say %q", want)
		}
	}
}
