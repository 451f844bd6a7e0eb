//go:build root

package service

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func init() {
	// A service that answers hooks at both kinds of socket, as the words in files of its folder say.
	helpers["hookable"] = func(args []string) {
		stream, err := net.Listen("unix", filepath.Join(args[0], "stream"))
		if err != nil {
			panic(err)
		}
		dgram, err := net.ListenPacket("unixgram", filepath.Join(args[0], "dgram"))
		if err != nil {
			panic(err)
		}
		go answerStream(stream, args[0])
		sayNotify("READY=1")
		buf := make([]byte, 1000)
		for {
			n, _, err := dgram.ReadFrom(buf)
			if err != nil {
				panic(err)
			}
			answer, _ := os.ReadFile(filepath.Join(args[0], "answer"))
			for _, message := range strings.Split(string(answer), "\n\n") {
				if message != "" {
					sayNotify(strings.ReplaceAll(message, "HEARD", strings.ReplaceAll(string(buf[:n]), "\n", " ")))
				}
			}
		}
	}
}

func answerStream(l net.Listener, dir string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		line, _ := bufio.NewReader(c).ReadString('\n')
		answer, _ := os.ReadFile(filepath.Join(dir, "answer"))
		fmt.Fprint(c, strings.ReplaceAll(string(answer), "HEARD", strings.TrimSpace(line)))
		c.Close()
	}
}

// hookable starts a service with one hook for every occasion, and returns its folder.
func hookable(t *testing.T, h func(dir string) Hook, o ...func(*Options)) (*lab, string) {
	t.Helper()
	dir := publicDir(t)
	s := helperSpec("s", "hookable", dir)
	s.Ready.Kind = "notify"
	hooks := []Hook{h(dir)}
	s.BeforeSnapshot, s.AfterRestore, s.AfterRelease = hooks, hooks, hooks
	l := newLab(t, s)
	if err := l.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return l, dir
}

func TestAnsweringHooks(t *testing.T) {
	socket := func(dir string) Hook {
		return Hook{URL: "socket:" + filepath.Join(dir, "stream")}
	}
	notify := func(dir string) Hook {
		return Hook{URL: "notify:" + filepath.Join(dir, "dgram")}
	}
	tests := map[string]struct {
		hook         func(string) Hook
		answer       string
		code         int
		output, want string // want is of the error
		notNow       bool
	}{
		"socket: well":            {socket, "ok HEARD\n", 0, "before-snapshot s", "", false},
		"socket: not now":         {socket, "not-now backup is running\n", 75, "backup is running", "not now: backup is running", true},
		"socket: failure":         {socket, "disk is full\n", 1, "is full", "disk is full", false},
		"socket: half a line":     {socket, "ok", -1, "", "no answer in one line", false},
		"socket: endless line":    {socket, strings.Repeat("x", 100000), -1, "", "no answer in one line", false},
		"socket: nothing":         {socket, "", -1, "", "no answer in one line", false},
		"socket: empty line":      {socket, "\n", 1, "", "of service s:  ", false},
		"notify: READY=1":         {notify, "RELOADING=1\n\nREADY=1\nSTATUS=HEARD", 0, "ROUSE_HOOK=before-snapshot ROUSE_SERVICE=s ", "", false},
		"notify: ok":              {notify, "STATUS=on my way\n\nX_ROUSE=ok", 0, "", "", false},
		"notify: not now":         {notify, "X_ROUSE=not-now\nSTATUS=backup is running", 75, "backup is running", "not now: backup is running", true},
		"notify: failure":         {notify, "X_ROUSE=failed\nSTATUS=disk is full", 1, "disk is full", "failed disk is full", false},
		"notify: nothing":         {notify, "", -1, "", "no answer by READY=1 or X_ROUSE", false},
		"notify: something else":  {notify, "WATCHDOG=1", -1, "", "no answer by READY=1 or X_ROUSE", false},
		"notify: nobody listens":  {func(dir string) Hook { return Hook{URL: "notify:" + dir + "/no"} }, "", -1, "", "/no: no such file", false},
		"socket: nobody listens":  {func(dir string) Hook { return Hook{URL: "socket:" + dir + "/no"} }, "", -1, "", "/no: no such file", false},
		"notify: a stream socket": {func(dir string) Hook { return Hook{URL: "notify:" + dir + "/stream"} }, "", -1, "", "protocol wrong type", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l, dir := hookable(t, func(dir string) Hook {
				h := tt.hook(dir)
				h.Timeout = time.Minute
				if strings.HasPrefix(tt.want, "no answer by") { // that is what comes of waiting
					h.Timeout = 300 * time.Millisecond
				}
				return h
			})
			if err := os.WriteFile(filepath.Join(dir, "answer"), []byte(tt.answer), 0o644); err != nil {
				t.Fatal(err)
			}
			res, err := l.Hooks(testContext(t), BeforeSnapshot)
			if len(res) != 1 || res[0].ExitCode != tt.code || strings.TrimSpace(res[0].Output) != strings.TrimSpace(tt.output) {
				t.Errorf("%+v", res)
			}
			if (err == nil) != (tt.want == "") || errors.Is(err, ErrNotNow) != tt.notNow || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// An answer is to one hook: what comes with nothing asked does not answer the next.
func TestUnaskedAnswer(t *testing.T) {
	l, _ := hookable(t, func(dir string) Hook {
		return Hook{URL: "notify:" + filepath.Join(dir, "dgram"), Timeout: 50 * time.Millisecond}
	})
	u := l.byName["s"]
	u.answer(message{rouse: "ok"})
	if _, err := l.Hooks(testContext(t), BeforeSnapshot); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the deadline: nobody has answered", err)
	}
}

// Hooks of the machine, the words of the folder, other users, and the order of it all.
// A hook of a cgroup that somebody has frozen is refused with the cure, at once; thawed by it, the hook runs.
func TestHookOfFrozenCgroup(t *testing.T) {
	s := shell("s", "exec sleep 1000")
	s.BeforeSnapshot = []Hook{{Exec: []string{"sh", "-c", "echo ran"}}}
	l := newLab(t, s)
	if err := l.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	knob := filepath.Join(l.byName["s"].hookCg.path, "cgroup.freeze")
	for _, state := range []string{"1", "0"} {
		if err := os.WriteFile(knob, []byte(state), 0); err != nil {
			t.Fatal(err)
		}
		res, err := l.Hooks(testContext(t), BeforeSnapshot)
		if state == "0" && (err != nil || len(res) != 1 || res[0].Output != "ran\n") || state == "1" && (err == nil || !strings.Contains(err.Error(), knob)) {
			t.Errorf("frozen %s: %+v, %v", state, res, err)
		}
	}
}

func TestHookOrder(t *testing.T) {
	dir := publicDir(t)
	path := filepath.Join(dir, "10-a")
	if err := errors.Join(os.WriteFile(path, []byte("#!/bin/sh\necho folder $1\n"), 0o755), os.Chmod(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	say := func(who, user string) []Hook {
		return []Hook{{Exec: []string{"sh", "-c", "echo " + who + " $ROUSE_HOOK $(id -u):$(id -g) $HOME"}, User: user}}
	}
	spec := func(name string) Spec {
		s := shell(name, "exec sleep 1000")
		s.BeforeSnapshot, s.AfterRestore, s.AfterRelease = say(name, ""), say(name, "1234:5678"), say(name, "")
		return s
	}
	a, b := spec("a"), spec("b")
	b.After = []string{"a"}
	l := newLab(t, b, a)
	l.o.HookDir = dir
	l.dropin.spec.BeforeSnapshot, l.dropin.spec.AfterRestore, l.dropin.spec.AfterRelease = say("machine", ""), say("machine", "1234:5678"), say("machine", "")
	ctx := testContext(t)
	if err := l.Start(ctx); err != nil {
		t.Fatal(err)
	}
	const home = "0:0 /root\n"
	for when, want := range map[string]string{
		BeforeSnapshot:   "folder freeze\nmachine before-snapshot 0:0 /root\nb before-snapshot 0:0 /root\na before-snapshot 0:0 /root\n",
		AfterRestore:     "a after-restore 1234:5678 /\nb after-restore 1234:5678 /\nmachine after-restore 1234:5678 /\nfolder thaw\n",
		SnapshotReleased: "a snapshot-released " + home + "b snapshot-released " + home + "machine snapshot-released " + home + "folder thaw\n",
		SnapshotAborted:  "a snapshot-aborted " + home + "b snapshot-aborted " + home + "machine snapshot-aborted " + home + "folder freeze-fail\n",
	} {
		res, err := l.Hooks(ctx, when)
		var got string
		for _, r := range res {
			got += r.Output
		}
		if err != nil || got != want {
			t.Errorf("%s:\n%s%v\nwant\n%s", when, got, err, want)
		}
	}
	if _, err := l.Hooks(ctx, "sometimes"); err == nil {
		t.Error("an unknown occasion has hooks")
	}
}
