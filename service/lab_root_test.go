//go:build root

package service

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	if os.Getenv("ROUSE_FLOOD") == "" {
		floodSize = 100_000
	}
	helpers["hooked"] = func(args []string) { fmt.Println(os.Getenv("ROUSE_HOOK"), os.Getenv("ROUSE_SERVICE"), args) }
	helpers["notify"] = func(args []string) {
		sayNotify(strings.Join(args, "\n"))
		time.Sleep(time.Hour)
	}
	helpers["listen"] = func(args []string) {
		l, err := net.Listen("tcp", "127.0.0.1:"+args[0])
		if err != nil {
			panic(err)
		}
		defer l.Close()
		time.Sleep(time.Hour)
	}
	helpers["flood"] = func([]string) {
		w := bufio.NewWriterSize(os.Stdout, 1<<16)
		for i := range 300000 {
			fmt.Fprintf(w, "flooding line %d\n", i)
		}
		w.Flush()
	}
	helpers["pid1"] = func([]string) {
		reaper := NewReaper()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go reaper.Run(ctx)
		p, err := reaper.Start(&Command{Path: "/bin/sh", Args: []string{"sh", "-c", "(sh -c true & ) ; exit 7"}})
		if err != nil {
			panic(err)
		}
		status, err := p.Wait(ctx)
		if err != nil {
			panic(err)
		}
		for reaper.Orphans() == 0 {
			time.Sleep(time.Millisecond)
		}
		fmt.Printf("pid %d: %s, %d orphan\n", os.Getpid(), describe(status), reaper.Orphans())
	}
	helpers["deaf"] = func([]string) { // SIGTERM does nothing
		signal.Ignore(syscall.SIGTERM)
		sayNotify("READY=1")
		time.Sleep(time.Hour)
	}
}

func sayNotify(text string) {
	fd, _ := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err := unix.Sendto(fd, []byte(text), 0, &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}); err != nil {
		panic(err)
	}
	unix.Close(fd)
}

// cgroup2Mount returns where the machine's cgroup v2 tree is, "" if nowhere.
func cgroup2Mount() string {
	data, _ := os.ReadFile("/proc/self/mountinfo")
	for _, line := range strings.Split(string(data), "\n") {
		if left, right, _ := strings.Cut(line, " - "); strings.HasPrefix(right, "cgroup2 ") {
			return strings.Fields(left)[4]
		}
	}
	return ""
}

// cgroup2 returns a new empty directory of the machine's cgroup v2 tree.
func cgroup2(t testing.TB) string {
	t.Helper()
	at := cgroup2Mount()
	if at == "" {
		t.Fatal("no cgroup2 file system is mounted")
	}
	dir, err := os.MkdirTemp(at, "rouse-service-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeTree(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

type lab struct {
	*Manager
	mu    sync.Mutex
	lines []string
	logs  []string
}

func (l *lab) output(service string, line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, service+": "+string(line))
}

func (l *lab) logged() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.logs, "\n")
}

func newLab(t *testing.T, specs ...Spec) *lab {
	t.Helper()
	l := &lab{}
	o := Options{
		CgroupRoot: cgroup2(t), Reaper: testReaper, Output: l.output, RunDir: publicDir(t),
		Log: func(format string, args ...any) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.logs = append(l.logs, fmt.Sprintf(format, args...))
		},
	}
	m, err := New(o, specs)
	if err != nil {
		t.Fatal(err)
	}
	l.Manager = m
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(m.Stop(ctx), m.Close()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(l.logged())
		}
	})
	return l
}

// helperSpec is a service that runs the named helper of this binary.
func helperSpec(name, helper string, args ...string) Spec {
	self, _ := os.Executable()
	return Spec{Name: name, Exec: append([]string{self}, args...), Env: []string{helperKey + "=" + helper}}
}

func shell(name, script string) Spec {
	return Spec{Name: name, Exec: []string{"sh", "-c", script}}
}

func (l *lab) state(name string) Status {
	for _, s := range l.Status() {
		if s.Name == name {
			return s
		}
	}
	return Status{}
}

// eventually waits for a condition that the kernel or a service will bring about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not seen", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// printed waits for at least n lines of a service, and returns all: what it prints is read beside its end being noticed.
func (l *lab) printed(t *testing.T, service string, n int) (lines []string) {
	t.Helper()
	eventually(t, "output of "+service, func() bool { return len(l.Log(service, 0)) >= n })
	for _, line := range l.Log(service, 0) {
		lines = append(lines, string(line))
	}
	return lines
}

// withExe makes the test binary reachable for a user who cannot enter the build's folder.
func withExe(t *testing.T, s Spec) Spec {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	s.Exec[0] = filepath.Join(publicDir(t), "svc")
	if err := os.WriteFile(s.Exec[0], self, 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

// publicDir is like t.TempDir for files that other users are to reach.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rouse-service-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// ownPort is a port that only who sets SO_REUSEADDR may bind too, as package net does: the kernel gives it to nobody who
// asks for any port.
func ownPort(t *testing.T) int {
	t.Helper()
	fd := tcpSocket(t)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	a, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return a.(*unix.SockaddrInet4).Port
}

// spin is a service of one thread, which is ready when it runs without a rest: of a Go program's threads the one that
// spins can be another at every look.
func spin() Spec {
	s := shell("spin", "echo >&3; while :; do :; done")
	s.Ready.Kind = "fd"
	return s
}
