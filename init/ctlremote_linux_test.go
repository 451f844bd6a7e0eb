package main

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"rouse/control"
	"rouse/service"
)

// TestRemote starts programs as guest-exec does, but for the cgroup.
func TestRemote(t *testing.T) {
	reaper := service.NewReaper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- reaper.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	for name, tt := range map[string]struct {
		request   control.ExecRequest
		out, diag string
		code      int
		signal    int
		cut       bool
	}{
		"output":    {request: control.ExecRequest{Path: "sh", Args: []string{"-c", "echo out; echo diag >&2; exit 3"}, Capture: true}, out: "out\n", diag: "diag\n", code: 3},
		"input":     {request: control.ExecRequest{Path: "/bin/cat", Input: []byte("in"), Capture: true}, out: "in"},
		"no input":  {request: control.ExecRequest{Path: "/bin/cat", Capture: true}},
		"not asked": {request: control.ExecRequest{Path: "sh", Args: []string{"-c", "echo out"}}},
		"signal":    {request: control.ExecRequest{Path: "sh", Args: []string{"-c", "kill -9 $$"}}, signal: 9},
		"much":      {request: control.ExecRequest{Path: "sh", Args: []string{"-c", "head -c 300000 /dev/zero | tr '\\0' x"}, Capture: true}, out: strings.Repeat("x", 1000), cut: true},
		"env":       {request: control.ExecRequest{Path: "sh", Args: []string{"-c", "echo $A; pwd"}, Env: []string{"A=b", "PATH=/usr/bin:/bin"}, Capture: true}, out: "b\n/\n"},
		"unread":    {request: control.ExecRequest{Path: "/bin/true", Input: make([]byte, 1<<20)}},
		"left over": {request: control.ExecRequest{Path: "sh", Args: []string{"-c", "sleep 30 & echo out"}, Capture: true}, out: "out\n"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.request.OutputLimit = 1000
			e, err := startRemote(reaper, &syscall.SysProcAttr{Setsid: true}, tt.request)
			if err != nil {
				t.Fatal(err)
			}
			<-e.Done
			_ = syscall.Kill(-e.PID, syscall.SIGKILL) // what is left of its session
			if string(e.Out) != tt.out || string(e.Err) != tt.diag || e.ExitCode != tt.code || e.Signal != tt.signal || e.OutTruncated != tt.cut {
				t.Errorf("out %.50q, err %q, code %d, signal %d, truncated %v", e.Out, e.Err, e.ExitCode, e.Signal, e.OutTruncated)
			}
		})
	}
	if _, err := startRemote(reaper, nil, control.ExecRequest{Path: "no-such-program", Capture: true, Input: []byte("x")}); err == nil {
		t.Error("started what there is not")
	}
	if _, err := startRemote(reaper, nil, control.ExecRequest{Path: "/no/such/program", Capture: true, Input: []byte("x")}); err == nil {
		t.Error("started what there is not")
	}
}

// Who comes late to a pipe takes what is in it, and no more, although somebody goes on filling it.
func TestDrainIsLate(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, err := w.WriteString("said in time"); err != nil {
		t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if kept, more := drain(r, 100); string(kept) != "said in time" || more {
		t.Errorf("%q, %v", kept, more)
	}
	done := make(chan struct{})
	defer func() {
		w.Close()
		<-done
	}()
	go func() {
		defer close(done)
		for flood := make([]byte, 4096); ; {
			if _, err := w.Write(flood); err != nil {
				return
			}
		}
	}()
	if err := r.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if kept, _ := drain(r, 100); len(kept) > 100 {
		t.Errorf("%d bytes kept", len(kept))
	}
}
