//go:build root

package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	// PID 1 of a namespace, with one service that is given as arguments.
	helpers["shielded"] = func(args []string) {
		reaper := NewReaper()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go reaper.Run(ctx)
		check := func(err error) {
			if err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
		}
		// /proc is that of the new namespace.
		check(unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""))
		check(unix.Mount("proc", "/proc", "proc", 0, ""))
		s := Spec{Name: "s", Exec: []string{"/proc/self/exe", args[2]}, Env: []string{helperKey + "=hostile"}, Oneshot: true}
		if args[3] != "" {
			s.Confine.Capabilities = []string{args[3]}
		}
		m, err := New(Options{CgroupRoot: args[0], Reaper: reaper, RunDir: args[1], NoTrace: true,
			Log: func(format string, args ...any) { fmt.Printf(format+"\n", args...) }}, []Spec{s})
		check(err)
		check(m.Start(ctx))
		var said []LogLine
		for next := uint64(0); len(said) == 0 || said[len(said)-1].Text != "over"; {
			lines, to, err := m.LogSince(ctx, "s", next, 0)
			check(err)
			said, next = append(said, lines...), to
		}
		check(errors.Join(m.Stop(ctx), m.Close()))
		for _, l := range said[:len(said)-1] {
			fmt.Println(l.Text)
		}
	}
	helpers["hostile"] = func(args []string) {
		switch args[0] {
		case "signals":
			for n := syscall.Signal(1); n <= 64; n++ {
				if err := unix.Kill(1, n); err != nil {
					fmt.Println(int(n), err)
				}
			}
			fmt.Println("sent")
		case "trace":
			runtime.LockOSThread()
			fmt.Println("attach:", unix.PtraceAttach(1))
			lookAtInit()
		case "look": // and leave it running
			lookAtInit()
		}
		fmt.Println("over")
	}
}

func lookAtInit() {
	f, err := os.OpenFile("/proc/1/mem", os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	fmt.Println("memory:", errors.Unwrap(err))
	local := make([]byte, 8)
	_, err = unix.ProcessVMReadv(1, []unix.Iovec{{Base: &local[0], Len: 8}}, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
	fmt.Println("read:", err)
	_, err = os.Readlink("/proc/1/fd/0")
	fmt.Println("descriptors:", errors.Unwrap(err))
}

// inherited tells whether this process passes capabilities on that are not in its bounding set (capabilities(7)).
func inherited(t *testing.T) bool {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "CapInh:\t")
	set, _, _ := strings.Cut(rest, "\n")
	return strings.Trim(set, "0") != ""
}

// TestShield has a root service send PID 1 of a pid namespace what ends a Go program, and trace it.
func TestShield(t *testing.T) {
	if inherited(t) {
		t.Skip("we have inheritable capabilities, which PID 1 has not: they outlive the bounding set")
	}
	for _, c := range []struct{ name, deed, capability, want string }{
		{"signals", "signals", "", "sent\n"},
		{"trace", "trace", "", "attach: operation not permitted\nmemory: permission denied\nread: operation not permitted\ndescriptors: permission denied\n"},
		// Who asks for it gets it, and all others keep it.
		{"trace allowed", "look", "sys_ptrace", "memory: <nil>\nread: <nil>\ndescriptors: <nil>\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			// A PID 1 that is traced and stopped says no more.
			if err := r.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			cmd := helper("shielded", cgroup2(t), publicDir(t), c.deed, c.capability)
			cmd.Stdout, cmd.Stderr = w, w
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
			p, err := testReaper.Start(cmd)
			w.Close()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = p.Signal(unix.SIGKILL) }()
			out := string(readTail(r, 4096))
			if strings.Contains(out, "may trace PID 1: operation not supported") {
				t.Skip("built with cgo, which /init is not: CGO_ENABLED=0")
			}
			if status, err := p.Wait(testContext(t)); err != nil || status != 0 || out != c.want {
				t.Errorf("%s, %v, said\n%s\nwant\n%s", describe(status), err, out, c.want)
			}
		})
	}
}
