//go:build vm

package vmtest

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"rouse/control"
	"rouse/doctor"
	"rouse/quiesce"
	"rouse/vmm"
)

// notifyPort is a virtio-serial port whose host end is a file.
const notifyPort = "rouse.notify"

// driven boots a guest with a service "worker" and a driver that runs lines of guest commands one after the other.
func driven(t *testing.T, series, worker string, change func(*vmm.Config), lines ...string) *Guest {
	t.Helper()
	program := lab.program(t, "ctlguest", "build", "-o", lab.Binary("ctlguest"), "./internal/vmtest/ctlguest")
	quoted := ""
	for _, line := range lines {
		quoted += ", " + strconv.Quote(line)
	}
	img := lab.Image(t, series, `hostname = "driven"

[[service]]
name = "worker"
exec = ["/usr/bin/ctlguest", "worker"]
env = ["MARK=of-the-worker"]
dir = "/usr"
`+worker+`

[[service]]
name = "driver"
after = ["worker"]
exec = ["/usr/bin/ctlguest", "drive"`+quoted+`]
restart = "never"
`+everything, map[string]string{"/usr/bin/ctlguest": program})
	g := Talk(t, Boot(t, img, change))
	g.Wait("running")
	return g
}

// driverLog waits until the driver has ended for the given time and returns what it has printed, from its last
// beginning.
func driverLog(t *testing.T, g *Guest, first string, ends int) string {
	t.Helper()
	var all []string
	var next uint64
	for deadline := time.Now().Add(Timeout); time.Now().Before(deadline); {
		var page struct {
			Lines []control.LogLine
			Next  uint64
		}
		g.Do("rouse-log", map[string]any{"service": "driver", "after": next, "timeout-ms": 20000}, &page)
		next = page.Next
		for _, l := range page.Lines {
			if all = append(all, l.Text); l.Text == "driven" {
				ends--
			}
		}
		if ends == 0 {
			text := strings.Join(all, "\n")
			return text[strings.LastIndex(text, "$ "+first+"\n"):]
		}
	}
	t.Fatalf("the driver does not end:\n%s", strings.Join(all, "\n"))
	return ""
}

// answer is what a line of the driver printed, and its status.
func answer(t *testing.T, text, line string) string {
	t.Helper()
	_, text, ok := strings.Cut(text, "$ "+line+"\n")
	if !ok {
		t.Fatalf("%q was not run:\n%s", line, text)
	}
	text, _, _ = strings.Cut(text, "\n$ ")
	return text
}

// TestRousectl runs the guest's commands in a guest as its root would.
func TestRousectl(t *testing.T) {
	lines := []string{"status", "status --json", "services", "config", "doctor", "doctor --all", "doctor --json", "report", "report --list", "watchers --json",
		"signal worker USR1", "signal worker NOSUCH", "follow worker", "logs -n 2 worker", "logs --json -n 1 worker", "logs -n 1", "stop worker", "stop worker --json", "exec worker id",
		"start worker", "restart worker", "restart nobody", "exec worker -- /usr/bin/ctlguest id", "exec worker ctlguest id", "exec worker no-such-command", "self id",
		"completion words stop", "completion words gate", "poweroff --help", "version --json", "melt", "self notify serial:" + notifyPort, "self notify serial:no-such-port"}
	forKernels(t, func(t *testing.T, series string) {
		notified := filepath.Join(t.TempDir(), "notified")
		g := driven(t, series, "user = \"1234\"\ngroup = \"2345\"\ngroups = [\"77\"]\nno-new-privs = true\nprivate-tmp = true\n", func(c *vmm.Config) {
			c.Extra = append(c.Extra, "-chardev", "file,id=notified,path="+notified, "-device", "virtserialport,chardev=notified,name="+notifyPort)
		}, lines...)
		text := driverLog(t, g, lines[0], 1)
		for _, tt := range []struct{ line, want, end string }{
			{"status", "state       running", "= 0"},
			{"status --json", `"state": "running"`, "= 0"},
			{"services", "worker  running", "= 0"},
			{"config", "service[0].name", "= 0"},
			{"config", "/etc/rouse.toml:1", "= 0"},
			{"config", "default", "= 0"},
			{"doctor", "snapshots are safe here", "= 0"},
			{"doctor --all", "nftables", "= 0"},
			{"doctor --json", `"safe": true`, "= 0"},
			{"report", "none yet", "= 1"},
			{"report --list", "OUTCOME", "= 0"},
			{"watchers --json", "[]", "= 0"},
			{"signal worker USR1", "worker  running", "= 0"},
			{"signal worker NOSUCH", `signal "NOSUCH": unknown`, "= 1"},
			{"follow worker", "followed: signal ", ""},
			{"logs -n 2 worker", "signal ", "= 0"},
			{"logs --json -n 1 worker", `"seq":`, "= 0"},
			{"logs -n 1", "[ ", "= 0"},
			{"stop worker", "worker  stopped", "= 0"},
			{"stop worker --json", `"state": "stopped"`, "= 0"},
			{"exec worker id", "it does not run", "= 1"},
			{"start worker", "worker  running", "= 0"},
			{"restart worker", "worker  running", "= 0"},
			{"restart nobody", "no such service", "= 1"},
			{"exec worker -- /usr/bin/ctlguest id", "id uid=1234 gid=2345 groups=[77", "= 0"},
			{"exec worker -- /usr/bin/ctlguest id", "dir=/usr mark=of-the-worker", "= 0"},
			{"exec worker -- /usr/bin/ctlguest id", "NoNewPrivs:1 private=true", "= 0"},
			{"exec worker ctlguest id", "id uid=1234", "= 0"},
			{"exec worker no-such-command", "no-such-command: not found in PATH=", "= 1"},
			{"self id", "id uid=0 gid=0", "= 0"},
			{"self id", "NoNewPrivs:0 private=false", "= 0"},
			{"completion words stop", "driver\n--json", "= 0"},
			{"completion words gate", "open\nhold\nshut\nstatus\n", "= 0"},
			{"poweroff --help", "end the machine", "= 0"},
			{"version --json", `"version": `, "= 0"},
			{"melt", "no such command; there are status,", "= 1"},
			{"self notify serial:" + notifyPort, "", "= 0"},
			{"self notify serial:no-such-port", "notify serial:no-such-port: find virtio port", "= 1"},
		} {
			if got := answer(t, text, tt.line); !strings.Contains(got, tt.want) || !strings.HasSuffix(strings.TrimSuffix(got, "\ndriven"), tt.end) {
				t.Errorf("rousectl %s: %q, want %q and %q", tt.line, got, tt.want, tt.end)
			}
		}
		theirs, ours := answer(t, text, "exec worker -- /usr/bin/ctlguest id"), answer(t, text, "self id")
		if cgroup := "cgroup=0::"; !strings.Contains(theirs, "worker") || field(theirs, cgroup) == field(ours, cgroup) {
			t.Errorf("exec ran in %q, the driver in %q", theirs, ours)
		}
		if heard, err := os.ReadFile(notified); err != nil || string(heard) != "READY=1\nSTATUS=all services are ready\n\n" {
			t.Errorf("the host heard %q, %v", heard, err)
		}
		reports(t, g, lines[0])
	})
}

func field(text, prefix string) string {
	_, text, _ = strings.Cut(text, prefix)
	text, _, _ = strings.Cut(text, " ")
	return text
}

// reports quiesces and releases the guest twice and runs its driver again.
func reports(t *testing.T, g *Guest, first string) {
	t.Helper()
	if err := g.Try("rouse-service", map[string]string{"name": "worker", "action": "melt"}, nil); err == nil {
		t.Error("a service was melted")
	}
	for range 2 {
		g.Do("rouse-quiesce", nil, nil)
		if err := g.Try("rouse-service", map[string]string{"name": "worker", "action": "stop"}, nil); err == nil {
			t.Error("a service was stopped in a frozen guest")
		}
		if err := g.Try("rouse-doctor", nil, nil); err == nil {
			t.Error("the doctor came to a frozen guest")
		}
		g.Do("rouse-release", nil, nil)
		g.Wait("running")
	}
	var all []quiesce.Report
	g.Do("rouse-reports", nil, &all)
	kinds := ""
	for i, r := range all {
		kinds += r.Kind + " "
		var one quiesce.Report
		if g.Do("rouse-report", map[string]int{"index": i}, &one); one.StartNS != r.StartNS {
			t.Errorf("report %d began at %d, in the list at %d", i, one.StartNS, r.StartNS)
		}
	}
	if kinds != "thaw quiesce thaw quiesce " {
		t.Errorf("reports: %s", kinds)
	}
	if err := g.Try("rouse-report", map[string]int{"index": len(all)}, nil); err == nil {
		t.Error("a report that there is not")
	}
	g.Do("rouse-service", map[string]string{"name": "driver", "action": "start"}, nil)
	text := driverLog(t, g, first, 2)
	if got := answer(t, text, "report --list"); !strings.Contains(got, "4  quiesce  ready") {
		t.Errorf("list of reports: %s", got)
	}
	if got := answer(t, text, "report"); !strings.Contains(got, "thaw: open in ") {
		t.Errorf("last report: %s", got)
	}
	t.Logf("in the guest:\n%s\n%s\n%s", answer(t, text, "doctor"), answer(t, text, "report"), answer(t, text, "report --list"))
}

// TestDoctor withholds what a guest needs and asks what that costs: the kernel's module_blacklist is the same to the
// guest as an image without a module.
func TestDoctor(t *testing.T) {
	forKernels(t, func(t *testing.T, series string) {
		for _, c := range []struct {
			withheld string
			safe     bool
			want     map[string]string // needs and the ways chosen
		}{
			{"", true, map[string]string{"gate": "nftables", "gate below IP": "tc", "hold": "new flows are refused", "generation": "vmgenid page", "drain TCP": "sock_diag",
				"drain unix": "sock_diag", "sever": "SOCK_DESTROY", "freezer": "cgroup v2", "conntrack": "flushed by netlink", "barrier": "packet socket", "virtio-serial": "virtio_console"}},
			{"tcp_diag,udp_diag,unix_diag,nf_conntrack_netlink", true, map[string]string{"drain TCP": "/proc/net", "drain UDP": "/proc/net", "drain unix": "descriptors", "sever": "disconnect", "conntrack": ""}},
			{"nf_tables,cls_bpf", true, map[string]string{"gate": "cgroup", "gate below IP": ""}},
			{"fuse", series != "6.1", map[string]string{"watchers": map[string]string{"6.1": "", "6.12": "passthrough"}[series]}}, // built in there
		} {
			t.Run("without "+c.withheld, func(t *testing.T) {
				g := driven(t, series, "", func(v *vmm.Config) {
					if c.withheld != "" {
						v.Cmdline += " module_blacklist=" + c.withheld
					}
				}, "doctor")
				var r doctor.Report
				g.Do("rouse-doctor", nil, &r)
				if r.Safe != c.safe {
					t.Errorf("safe: %v, want %v: %s", r.Safe, c.safe, r.Verdict)
				}
				for _, f := range r.Needs {
					if want, asked := c.want[f.Need]; asked && f.Chosen != want {
						t.Errorf("%+v, want %q", f, want)
					}
				}
				status := map[bool]string{true: "= 0", false: "= 1"}[c.safe]
				if got := answer(t, driverLog(t, g, "doctor", 1), "doctor"); !strings.HasSuffix(strings.TrimSuffix(got, "\ndriven"), status) {
					t.Errorf("rousectl doctor: %s\nwant %s", got, status)
				} else {
					t.Log(got)
				}
			})
		}
	})
}

// TestRemoteExec: programs by the host, where the configuration turns them on. A quiesce is refused while one of them runs, and
// none is started in a quiesced guest. The host has been told by then that the guest is ready.
func TestRemoteExec(t *testing.T) {
	program := lab.program(t, "ctlguest", "build", "-o", lab.Binary("ctlguest"), "./internal/vmtest/ctlguest")
	notified := filepath.Join(t.TempDir(), "notified")
	img := lab.Image(t, "6.12", "[control]\nexec = true\nnotify = \"serial:"+notifyPort+"\"\n", map[string]string{"/usr/bin/ctlguest": program})
	g := Talk(t, Boot(t, img, func(c *vmm.Config) {
		c.Extra = append(c.Extra, "-chardev", "file,id=notified,path="+notified, "-device", "virtserialport,chardev=notified,name="+notifyPort)
	}))
	g.Wait("running")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		heard, _ := os.ReadFile(notified)
		if string(heard) == "READY=1\nSTATUS=all services are ready\n\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the host heard %q", heard)
		}
	}
	status := func(pid int) (s struct {
		Exited bool
		Code   int    `json:"exitcode"`
		Signal int    `json:"signal"`
		Out    []byte `json:"out-data"`
	}) {
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline) && !s.Exited; {
			g.Do("guest-exec-status", map[string]int{"pid": pid}, &s)
		}
		return s
	}
	run := func(args ...string) int {
		var started struct{ PID int }
		g.Do("guest-exec", map[string]any{"path": "/usr/bin/ctlguest", "arg": args, "capture-output": true}, &started)
		return started.PID
	}
	if s := status(run("id")); !s.Exited || s.Code != 0 || !strings.Contains(string(s.Out), "cgroup=0::/exec ") {
		t.Errorf("%+v %s", s, s.Out)
	}
	run("worker")
	if err := g.Try("rouse-quiesce", nil, nil); !errors.Is(err, control.ErrRefused) {
		t.Errorf("quiesced beside a program of guest-exec: %v", err)
	}
	run("end") // all of them, itself too
	for deadline := time.Now().Add(time.Minute); ; {
		err := g.Try("rouse-quiesce", nil, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, control.ErrRefused) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if err := g.Try("guest-exec", map[string]string{"path": "/usr/bin/ctlguest"}, nil); !errors.Is(err, control.ErrRefused) {
		t.Errorf("a program was started in a quiesced guest: %v", err)
	}
	g.Do("rouse-release", nil, nil)
}
