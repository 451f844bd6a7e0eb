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
