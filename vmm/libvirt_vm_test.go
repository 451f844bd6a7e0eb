//go:build vm

package vmm

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rouse/quiesce"
)

// nobody runs libvirtd: as root it would be the machine's own, with sockets and state in the machine's folders.
const nobody = 65534

// libvirt is a session daemon with everything in a folder of its own.
type libvirt struct {
	t   *testing.T
	dir string // short: libvirt puts long socket names below it
	env []string
	as  *syscall.SysProcAttr
}

const domain = `<domain type='qemu'>
 <name>rouse</name><memory unit='MiB'>192</memory><vcpu>1</vcpu><genid/>
 <os><type arch='x86_64' machine='q35'>hvm</type><kernel>DIR/kernel</kernel><initrd>DIR/initrd</initrd><cmdline>console=ttyS0 quiet panic=-1 ip=10.0.2.15::10.0.2.2:255.255.255.0:::off</cmdline></os>
 <features><acpi/></features>
 <on_poweroff>destroy</on_poweroff><on_reboot>destroy</on_reboot><on_crash>destroy</on_crash>
 <devices>
  <emulator>/usr/bin/qemu-system-x86_64</emulator>
  <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='DIR/disk.raw'/><target dev='vda' bus='virtio'/></disk>
  <serial type='file'><source path='DIR/console.log'/></serial>
  <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
  <interface type='user'><mac address='52:54:00:12:34:56'/><model type='virtio'/></interface>
  <memballoon model='none'/>
 </devices>
</domain>`

func newLibvirt(t *testing.T, kernel, initrd string) *libvirt {
	t.Helper()
	for _, tool := range []string{"libvirtd", "virsh"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs Debian's libvirt-daemon, libvirt-daemon-driver-qemu and libvirt-clients:", err)
		}
	}
	dir, err := os.MkdirTemp("/tmp", "rv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l := &libvirt{t: t, dir: dir, as: &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}}
	for name, sub := range map[string]string{"HOME": "", "XDG_RUNTIME_DIR": "/r", "XDG_CONFIG_HOME": "/c", "XDG_CACHE_HOME": "/k", "XDG_DATA_HOME": "/d"} {
		l.env = append(l.env, name+"="+dir+sub)
		os.MkdirAll(dir+sub, 0o700)
	}
	l.env = append(l.env, "PATH="+os.Getenv("PATH"))
	l.write("domain.xml", []byte(strings.ReplaceAll(domain, "DIR", dir)))
	l.write("disk.raw", make([]byte, 1<<20))
	l.write("libvirtd.conf", nil)
	for name, from := range map[string]string{"kernel": kernel, "initrd": initrd} {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		l.write(name, data)
	}
	l.giveAway()
	return l
}

func (l *libvirt) write(name string, data []byte) {
	if err := os.WriteFile(filepath.Join(l.dir, name), data, 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// giveAway hands the folder to nobody if the test is root's.
func (l *libvirt) giveAway() {
	if os.Getuid() != 0 {
		return
	}
	l.as.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	filepath.WalkDir(l.dir, func(path string, _ os.DirEntry, _ error) error { return os.Chown(path, nobody, nobody) })
}

func (l *libvirt) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Dir, cmd.SysProcAttr = l.env, l.dir, l.as
	return cmd
}

// daemon runs libvirtd until the test ends, and ends the domain before it.
func (l *libvirt) daemon() {
	l.t.Helper()
	cmd := l.command("libvirtd", "-f", l.dir+"/libvirtd.conf")
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		l.try("destroy", "rouse")
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if _, err := l.try("version"); err == nil {
			return
		}
	}
	out, err := l.try("version")
	l.t.Fatalf("libvirtd does not answer: %v\n%s", err, out)
}

func (l *libvirt) try(args ...string) (string, error) {
	args = append([]string{"-c", "qemu:///session?socket=" + l.dir + "/r/libvirt/libvirt-sock"}, args...)
	out, err := l.command("virsh", args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// virsh runs a command that must succeed and say want.
func (l *libvirt) virsh(want string, args ...string) {
	l.t.Helper()
	out, err := l.try(args...)
	if err != nil || !strings.Contains(out, want) {
		l.t.Errorf("virsh %s: %v\n%s\nwant %q", strings.Join(args, " "), err, out, want)
	}
}

// report is what the real init says of its last quiesce, thaw or adjust.
func (l *libvirt) report() quiesce.Report {
	l.t.Helper()
	text, err := l.try("qemu-agent-command", "rouse", `{"execute":"rouse-report"}`)
	var answer struct{ Return quiesce.Report }
	if err == nil {
		err = json.Unmarshal([]byte(text), &answer)
	}
	if err != nil {
		l.t.Fatalf("report: %v\n%s", err, text)
	}
	return answer.Return
}

// expect wants a report of that kind and outcome, with these phases in this order among its own.
func (l *libvirt) expect(kind, outcome string, phases ...string) quiesce.Report {
	l.t.Helper()
	r := l.report()
	var names []string
	for _, p := range r.Phases {
		if len(phases) > len(names) && p.Name == phases[len(names)] {
			names = append(names, p.Name)
		}
	}
	if r.Kind != kind || r.Outcome != outcome || len(names) != len(phases) {
		l.t.Errorf("report %+v\nwant %s, %s, phases %q", r, kind, outcome, phases)
	}
	return r
}

// TestLibvirt drives a guest of the real init with libvirt's own tools: its freeze is the whole quiesce, its
// thaw the release.
func TestLibvirt(t *testing.T) {
	img := webImage(t, webConfig, "")
	l := newLibvirt(t, filepath.Join(img, KernelFile), filepath.Join(img, InitrdFile))
	l.daemon()
	l.virsh("created", "create", "domain.xml")
	l.awaitRunning()
	status := []string{"qemu-agent-command", "rouse", `{"execute":"guest-fsfreeze-status"}`}
	state := []string{"qemu-agent-command", "rouse", `{"execute":"rouse-status"}`}
	whole := []string{"hold", "drain", "shut", "barrier", "settle", "freeze", "verify", "sync"}

	l.virsh("Froze ", "domfsfreeze", "rouse")
	l.virsh(`"frozen"`, status...)
	l.virsh(`"gate":"shut"`, state...)
	l.expect("quiesce", "ready", whole...)
	if out, err := l.try("domfsfreeze", "rouse"); err == nil || !strings.Contains(out, "frozen") {
		t.Errorf("second freeze: %v, %s", err, out)
	}
	l.virsh("Thawed ", "domfsthaw", "rouse")
	l.virsh(`"thawed"`, status...)
	l.virsh(`"gate":"open"`, state...)
	l.expect("thaw", "open")

	l.queries()
	l.virsh("created", "snapshot-create-as", "rouse", "s1", "--disk-only", "--quiesce", "--no-metadata")
	l.virsh(`"thawed"`, status...)
	l.expect("thaw", "open")

	// A copy of the whole machine: libvirt gives a domain that it restores a new genid, so that the thaw is
	// answered when the adjust is under way or done.
	l.virsh("Froze ", "domfsfreeze", "rouse")
	l.virsh("saved", "save", "rouse", "saved")
	l.virsh("restored", "restore", "saved")
	l.virsh("Thawed ", "domfsthaw", "rouse")
	l.awaitRunning()
	l.virsh(`"gate":"open"`, state...)
	if r := l.expect("adjust", "open", "shut", "entropy", "identity", "sever", "bump", "thaw", "wait", "hooks", "open"); r.Generation != 1 || r.Uncontrolled {
		t.Errorf("after a restore: generation %d, uncontrolled %v; want 1, false", r.Generation, r.Uncontrolled)
	}
	l.virsh("being shutdown", "shutdown", "rouse", "--mode", "agent")
	l.awaitEnd()
}

// queries are the commands that only ask.
func (l *libvirt) queries() {
	l.t.Helper()
	l.virsh("", "domfsinfo", "rouse")
	l.virsh("Time: ", "domtime", "rouse")
	l.virsh("", "domtime", "rouse", "--now")
	l.virsh("", "domtime", "rouse", "--sync")
	l.virsh("10.0.2.15/24", "domifaddr", "rouse", "--source", "agent")
	l.virsh("52:54:00:12:34:56", "domifaddr", "rouse", "--source", "agent")
	l.virsh("web", "domhostname", "rouse", "--source", "agent")
	l.virsh("os.kernel-release", "guestinfo", "rouse")
	l.virsh("vcpus          : 0", "guestvcpus", "rouse") // the set that holds CPU 0
}

func (l *libvirt) awaitRunning() {
	l.t.Helper()
	for begin := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		out, err := l.try("qemu-agent-command", "rouse", `{"execute":"rouse-status"}`)
		if err == nil && strings.Contains(out, `"state":"running"`) {
			return
		}
		if time.Since(begin) > 4*time.Minute {
			l.t.Fatalf("the guest does not come up: %v\n%s", err, out)
		}
	}
}

func (l *libvirt) awaitEnd() {
	l.t.Helper()
	for begin := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		if out, _ := l.try("list", "--name"); out == "" {
			return
		}
		if time.Since(begin) > 3*time.Minute {
			l.t.Fatal("the guest does not shut down")
		}
	}
}
