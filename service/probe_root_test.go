//go:build root

package service

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	helpers["web"] = func(args []string) {
		l, err := net.Listen("unix", args[0])
		if err != nil {
			panic(err)
		}
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.Method + r.URL.Path {
			case "GET/ready", "POST/thaw":
				fmt.Fprint(w, "fine")
			case "POST/freeze":
				w.WriteHeader(503)
				fmt.Fprint(w, "backup is running\n")
			default:
				w.WriteHeader(404)
			}
		}))
	}
	// The first process of a daemon: its child goes on under MAINPID.
	helpers["daemon"] = func(args []string) {
		if len(args) > 0 {
			time.Sleep(time.Hour)
		}
		child, err := os.StartProcess("/proc/self/exe", []string{"daemon", "child"}, &os.ProcAttr{Files: []*os.File{nil, os.Stdout, os.Stderr}})
		if err != nil {
			panic(err)
		}
		sayNotify(fmt.Sprintf("MAINPID=%d\nREADY=1", child.Pid))
	}
}

func TestProbes(t *testing.T) {
	dir := publicDir(t)
	web := helperSpec("web", "web", filepath.Join(dir, "web"))
	web.Ready = Ready{Kind: "http", URL: "unix:" + filepath.Join(dir, "web") + ":/ready"}
	web.BeforeSnapshot = []Hook{{URL: "unix:" + filepath.Join(dir, "web") + ":/freeze"}}
	web.AfterRestore = []Hook{{URL: "unix:" + filepath.Join(dir, "web") + ":/thaw"}, {URL: "unix:" + filepath.Join(dir, "web") + ":/other"}}
	cmd := shell("cmd", "sleep 0.05; touch "+dir+"/flag; exec sleep 1000")
	cmd.Ready = Ready{Kind: "exec", Exec: []string{"test", "-e", dir + "/flag"}}
	fd := shell("fd", "sleep 0.05; echo now >&3; exec 3>&-; exec sleep 1000")
	fd.Ready.Kind = "fd"
	confined := shell("confined", "echo half; printf '\\n' >&3; exec sleep 1000")
	confined.Ready.Kind, confined.Confine.Nice = "fd", 1
	never := shell("never", "exec sleep 1000")
	never.Ready, never.ReadyTimeout = Ready{Kind: "fd"}, 50*time.Millisecond
	l := newLab(t, web, cmd, fd, confined, never)
	ctx := testContext(t)
	if err := l.Start(ctx); err == nil || err.Error() != "service never: not ready within 50ms" {
		t.Fatal(err)
	}
	if _, err := l.Hooks(ctx, BeforeSnapshot); !errors.Is(err, ErrNotNow) || !strings.Contains(err.Error(), "backup is running") {
		t.Errorf("freeze: %v", err)
	}
	res, err := l.Hooks(ctx, AfterRestore)
	if err == nil || !strings.Contains(err.Error(), "HTTP status 404") {
		t.Errorf("thaw: %v", err)
	}
	if len(res) != 2 || res[0].ExitCode != 200 || res[0].Output != "fine" || res[1].ExitCode != 404 {
		t.Errorf("%+v", res)
	}
}

func TestDaemonByMainPID(t *testing.T) {
	for range 20 { // the race of MAINPID with the end of the process that sent it
		t.Run("", func(t *testing.T) {
			s := helperSpec("d", "daemon")
			s.Ready.Kind = "notify"
			l := newLab(t, s)
			if err := l.Start(testContext(t)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "orphan", func() bool {
				data, err := newLooker().read(l.state("d").PID, "stat")
				if err != nil {
					t.Fatal(err)
				}
				st, _ := parseStat(data)
				return st.ppid == os.Getpid()
			})
			if st := l.state("d"); st.State != Running || !st.Ready {
				t.Fatalf("%+v", st)
			}
			if err := unix.Kill(l.state("d").PID, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, "its end", func() bool { return l.state("d").State == Failed })
			if st := l.state("d"); st.ExitCode != 137 {
				t.Errorf("%+v", st)
			}
		})
	}
}

func TestHealth(t *testing.T) {
	flag := publicDir(t) + "/well"
	if err := os.WriteFile(flag, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s := shell("s", "exec sleep 1000")
	s.Health = Health{Check: Ready{Kind: "exec", Exec: []string{"test", "-e", flag}}, Interval: 5 * time.Millisecond, Retries: 2}
	s.Restart, s.RestartDelay = "on-failure", time.Millisecond
	l := newLab(t, s)
	ctx := testContext(t)
	if err := l.Start(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "health", func() bool { return l.state("s").Health == Healthy })
	if err := l.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(flag); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // it is the check's own time that must not count
	if st := l.state("s"); st.Restarts != 0 {
		t.Errorf("restarted while frozen: %+v", st)
	}
	if err := l.Thaw(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "restart", func() bool { return l.state("s").Restarts > 0 })
	if !strings.Contains(l.logged(), "unhealthy: 2 checks in a row failed") {
		t.Error(l.logged())
	}
}

func TestHookDir(t *testing.T) {
	dir := publicDir(t)
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := errors.Join(os.WriteFile(filepath.Join(dir, name), []byte(text), mode), os.Chmod(filepath.Join(dir, name), mode)); err != nil {
			t.Fatal(err)
		}
	}
	script := "#!/bin/sh\necho ${0##*/} $1 $ROUSE_HOOK\n"
	write("10-a", script, 0o755)
	write("20-b", script, 0o755)
	write("README", "not executable", 0o644)
	s := shell("s", "exec sleep 1000")
	s.BeforeSnapshot = []Hook{{Exec: []string{"sh", "-c", "echo s freeze"}}}
	s.AfterRestore = []Hook{{Exec: []string{"sh", "-c", "echo s thaw"}}}
	l := newLab(t, s)
	l.o.HookDir = dir
	ctx := testContext(t)
	if err := l.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for when, want := range map[string]string{
		BeforeSnapshot:  "10-a freeze before-snapshot\n20-b freeze before-snapshot\ns freeze\n",
		AfterRestore:    "s thaw\n20-b thaw after-restore\n10-a thaw after-restore\n",
		SnapshotAborted: "20-b freeze-fail snapshot-aborted\n10-a freeze-fail snapshot-aborted\n",
	} {
		res, err := l.Hooks(ctx, when)
		var got string
		for _, r := range res {
			got += r.Output
		}
		if err != nil || got != want {
			t.Errorf("%s: %q, %v", when, got, err)
		}
	}
	write("30-c", "#!/bin/sh\necho wait; exit 75\n", 0o755)
	if _, err := l.Hooks(ctx, BeforeSnapshot); !errors.Is(err, ErrNotNow) || !strings.Contains(err.Error(), "30-c: not now: wait") {
		t.Errorf("%v", err)
	}
	write("40-d", script, 0o777)
	if _, err := l.Hooks(ctx, BeforeSnapshot); err == nil || !strings.Contains(err.Error(), "others than its owner can write") {
		t.Errorf("%v", err)
	}
}
