//go:build vm

package vmm

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rouse/internal/capture"
)

// tool is the host command with a run folder of its own.
type tool struct {
	t    *testing.T
	bin  string
	env  []string
	home string
}

func newTool(t *testing.T) *tool {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "rouse")
	if err := os.WriteFile(bin, build(t, "build", "../cmd/rouse"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := &tool{t, bin, append(os.Environ(), "XDG_RUNTIME_DIR="+filepath.Join(dir, "run"), "XDG_CACHE_HOME="+dir, "TMPDIR="+dir), dir}
	t.Cleanup(func() {
		for _, pid := range c.machines() {
			t.Errorf("QEMU %d still runs", pid)
			syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return c
}

func (c *tool) command(args ...string) *exec.Cmd {
	cmd := exec.Command(c.bin, args...)
	cmd.Env = c.env
	return cmd
}

// run runs a command that must succeed.
func (c *tool) run(args ...string) string {
	c.t.Helper()
	cmd := c.command(args...)
	var diag bytes.Buffer
	cmd.Stderr = &diag
	out, err := cmd.Output()
	if err != nil {
		c.t.Fatalf("rouse %q: %v\n%s%s", args, err, out, diag.String())
	}
	return string(out)
}

// machines are the QEMUs whose working directory is below ours.
func (c *tool) machines() (pids []int) {
	found, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range found {
		if cwd, err := os.Readlink(link); err == nil && strings.HasPrefix(cwd, c.home) {
			var pid int
			if exe, err := os.Readlink(filepath.Join(filepath.Dir(link), "exe")); err == nil && strings.Contains(exe, "qemu") {
				fmt.Sscanf(link, "/proc/%d/", &pid)
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// awaitNoMachines waits for the kernel to have ended what a killed command leaves.
func (c *tool) awaitNoMachines() {
	c.t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if len(c.machines()) == 0 {
			return
		}
	}
	c.t.Errorf("still running: %v", c.machines())
}

type listed struct {
	Name, State string
	Generation  int
	Ports       []struct {
		Host  string
		Guest int
	}
}

func (c *tool) ps() (list []listed) {
	c.t.Helper()
	for line := range strings.Lines(c.run("ps", "--json")) {
		var l listed
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			c.t.Fatal(err)
		}
		list = append(list, l)
	}
	return list
}

// TestCommand drives the whole life of clones by the command line.
func TestCommand(t *testing.T) {
	c := newTool(t)
	image, snapshot := webImage(t, webConfig, ""), filepath.Join(t.TempDir(), "web")
	c.killedBake(image, snapshot)
	c.run("bake", image, "-o", snapshot, "-p", "443", "--accel", "tcg")
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(snapshot), ".*"))
	if len(left) > 0 {
		t.Errorf("a killed bake's remains were not cleaned: %q", left)
	}
	t.Run("detached", func(t *testing.T) { c.t = t; c.detached(snapshot) })
	t.Run("exec", func(t *testing.T) { c.t = t; c.exec(snapshot) })
	t.Run("interrupted", func(t *testing.T) { c.t = t; c.interrupted(snapshot) })
	t.Run("archive", func(t *testing.T) { c.t = t; c.archive(snapshot) })
	c.t = t
}

// killedBake: not even SIGKILL leaves something that runs or that looks like a snapshot.
func (c *tool) killedBake(image, snapshot string) {
	cmd := c.command("bake", image, "-o", snapshot, "--accel", "tcg")
	diag, err := cmd.StderrPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	for s := bufio.NewScanner(diag); s.Scan() && !strings.Contains(s.Text(), "quiesce"); {
	}
	cmd.Process.Kill()
	cmd.Wait()
	c.awaitNoMachines()
	if _, err := os.Stat(snapshot); err == nil {
		c.t.Error("a killed bake left a snapshot")
	}
}

func (c *tool) detached(snapshot string) {
	c.run("clone", snapshot, "-n", "2", "-d", "--name", "web-{n}", "--hostname", "host-{n}")
	list := c.ps()
	if len(list) != 2 || list[0].Name != "web-0" || list[1].State != "ready" || list[0].Generation != 1 || len(list[1].Ports) != 1 {
		c.t.Errorf("ps: %+v", list)
	}
	if len(c.machines()) != 2 {
		c.t.Errorf("machines: %v", c.machines())
	}
	if out, err := c.command("clone", snapshot, "--name", "web-0").CombinedOutput(); err == nil || !strings.Contains(string(out), "taken") {
		c.t.Errorf("a name twice: %v, %s", err, out)
	}
	if text := c.run("logs", "web-0"); text == "" {
		c.t.Error("no console")
	}
	if out, err := c.command("rm", "web-0").CombinedOutput(); err == nil || !strings.Contains(string(out), "rouse stop") {
		c.t.Errorf("rm of a running clone: %v, %s", err, out)
	}
	c.run("stop", "web-0")
	c.run("stop", "--now", "web-1")
	if list = c.ps(); len(list) != 2 || list[0].State != "exited" || list[1].State != "exited" {
		c.t.Errorf("after stop: %+v", list)
	}
	c.run("rm", "web-0", "web-1")
	if list = c.ps(); len(list) != 0 {
		c.t.Errorf("after rm: %+v", list)
	}
}

// exec runs a command for each clone; nothing is left of them then.
func (c *tool) exec(snapshot string) {
	dir := c.t.TempDir()
	c.run("clone", snapshot, "-n", "2", "--exec", `echo "$ROUSE_CLONE $ROUSE_PORT $ROUSE_PORTS $ROUSE_VMGENID" > `+dir+`/$ROUSE_NAME`)
	seen := map[string]bool{}
	for i := range 2 {
		text, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("web-%d", i)))
		f := strings.Fields(string(text))
		if err != nil || len(f) != 5 || f[0] != fmt.Sprint(i) || f[1] != f[2+i] || seen[f[4]] {
			c.t.Errorf("clone %d: %q, %v", i, text, err)
			continue
		}
		seen[f[4]] = true
	}
	if len(c.machines()) > 0 || len(c.ps()) > 0 {
		c.t.Errorf("left: %v, %v", c.machines(), c.ps())
	}
	if out, err := c.command("clone", snapshot, "--exec", "exit 7").CombinedOutput(); err == nil || !strings.Contains(string(out), "clone 0") {
		c.t.Errorf("a command that fails: %v, %s", err, out)
	}
}

// interrupted ends a command by Ctrl-C, and another by SIGKILL: its clones end too, and its entries are
// struck at the next look.
func (c *tool) interrupted(snapshot string) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		cmd := c.command("clone", snapshot, "-n", "2")
		diag, err := cmd.StderrPipe()
		if err != nil {
			c.t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			c.t.Fatal(err)
		}
		for s := bufio.NewScanner(diag); s.Scan() && !strings.Contains(s.Text(), "Ctrl-C"); {
		}
		if list := c.ps(); len(list) != 2 {
			c.t.Errorf("%v: running: %+v", sig, list)
		}
		cmd.Process.Signal(sig)
		if err := cmd.Wait(); (err == nil) != (sig != syscall.SIGKILL) {
			c.t.Errorf("%v: %v", sig, err)
		}
		c.awaitNoMachines()
		if list := c.ps(); len(list) != 0 {
			c.t.Errorf("%v: still listed: %+v", sig, list)
		}
	}
}

// archive carries the snapshot through one file.
func (c *tool) archive(snapshot string) {
	dir := c.t.TempDir()
	file, folder := filepath.Join(dir, "web.rsnap"), filepath.Join(dir, "again")
	c.run("export", snapshot, file)
	c.run("import", file, folder)
	c.run("clone", folder, "--exit")
}

// TestVerifyCommand: an image whose server watches the generation passes; the same server without the watcher
// fails, and what repeated is told.
func TestVerifyCommand(t *testing.T) {
	c := newTool(t)
	type result struct {
		Safe   bool
		Checks []struct {
			Check, Verdict, Says string
			Values               []string
		}
	}
	for _, tt := range []struct {
		name, tags string
		safe       bool
		fails      []string
	}{
		{"watched", "", true, nil},
		{"unwatched", "nowatcher", false, []string{"watchers", "port 443 TLS ticket keys", "port 443 random values"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := c.command("verify", "--json", "-p", "443", "--accel", "tcg", webImage(t, webConfig, tt.tags))
			var diag bytes.Buffer
			cmd.Stderr = &diag
			out, err := cmd.Output()
			var r result
			if e := json.Unmarshal(out, &r); e != nil {
				t.Fatalf("%v\n%s%s", e, out, diag.String())
			}
			verdicts := map[string]string{}
			for _, k := range r.Checks {
				t.Logf("%s: %s: %s %q", k.Verdict, k.Check, k.Says, k.Values)
				verdicts[k.Check] = k.Verdict
			}
			if r.Safe != tt.safe || (err == nil) != tt.safe {
				t.Errorf("safe %v, status %v; want %v", r.Safe, err, tt.safe)
			}
			for _, name := range tt.fails {
				if verdicts[name] != "fail" {
					t.Errorf("%s: %q, want it to fail", name, verdicts[name])
				}
			}
			if verdicts["packets before release"] != "pass" || verdicts["generation"] != "pass" {
				t.Errorf("%v", verdicts)
			}
		})
	}
	if len(c.machines()) > 0 {
		t.Errorf("left: %v", c.machines())
	}
}

// bridge is a network of three TAP devices in a namespace of its own; each clone is asked from there, at an
// address and with a MAC that only it has.
const bridge = `
ip link set lo up
ip link add br0 type bridge
ip addr add 192.0.2.1/24 dev br0
ip link set br0 up
for i in 0 1 2; do
	ip tuntap add tap$i mode tap
	ip link set tap$i master br0 up
done
"$ROUSE" clone "$SNAPSHOT" -n 3 --tap 'tap{n}' --hostname 'web-{n}' --mac '52:54:00:00:01:{x+10}' \
	--address '192.0.2.{n+20}/24' --gateway 192.0.2.1 --capture "$OUT" \
	--exec 'curl -sk --max-time 20 https://192.0.2.$((ROUSE_CLONE + 20))/ > "$OUT/answer$ROUSE_CLONE"; ip neigh show 192.0.2.$((ROUSE_CLONE + 20)) > "$OUT/neigh$ROUSE_CLONE"'
`

// TestBridge: three clones on one bridge, all reachable, none with another's name or address, and none has
// said a word before it had its own.
func TestBridge(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to make TAP devices in a network namespace")
	}
	c := newTool(t)
	snapshot, dir := filepath.Join(t.TempDir(), "web"), t.TempDir()
	c.run("bake", webImage(t, webConfig, ""), "-o", snapshot, "--accel", "tcg")
	cmd := exec.Command("unshare", "--net", "sh", "-euc", bridge)
	cmd.Env = append(c.env, "ROUSE="+c.bin, "SNAPSHOT="+snapshot, "OUT="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	seen := map[string]bool{}
	for i := range 3 {
		var a struct {
			Random     string
			Generation int
		}
		text, err := os.ReadFile(filepath.Join(dir, fmt.Sprint("answer", i)))
		if err == nil {
			err = json.Unmarshal(text, &a)
		}
		if err != nil || a.Generation != 1 || seen[a.Random] {
			t.Errorf("clone %d: %s, %v", i, text, err)
		}
		seen[a.Random] = true
		mac := fmt.Sprintf("52:54:00:00:01:%02x", i+10)
		if text, err := os.ReadFile(filepath.Join(dir, fmt.Sprint("neigh", i))); err != nil || !strings.Contains(string(text), mac) {
			t.Errorf("clone %d: neighbour %s, %v, want %s", i, text, err, mac)
		}
		ownVoice(t, filepath.Join(dir, fmt.Sprintf("clone-%d.pcap", i)))
	}
}

// ownVoice wants no frame in a clone's capture that has its source's MAC.
func ownVoice(t *testing.T, path string) {
	t.Helper()
	frames, err := capture.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(frames) == 0 {
		t.Errorf("%s: no frame at all", path)
	}
	for _, f := range frames {
		if f.From(capture.GuestMAC) {
			t.Errorf("%s: a frame of %d bytes from the source's MAC", path, len(f.Data))
		}
	}
}
