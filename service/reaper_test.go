package service

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	helpers["exit"] = func(args []string) {
		code, _ := strconv.Atoi(args[0])
		os.Exit(code)
	}
	helpers["sleep"] = func([]string) { time.Sleep(time.Hour) }
}

// TestReaperLosesNoStatus starts children that end at once, from many goroutines, while
// orphans come in; every status must arrive at its owner.
func TestReaperLosesNoStatus(t *testing.T) {
	ctx := testContext(t)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 100 {
				want := (worker*100 + i) % 124
				p, err := testReaper.Start(&exec.Cmd{Path: "/bin/sh", Args: []string{"sh", "-c", "true & exit " + strconv.Itoa(want)}})
				if err != nil {
					t.Error(err)
					return
				}
				status, err := p.Wait(ctx)
				if err != nil || status.ExitStatus() != want {
					t.Errorf("status %v, %v, want %d", status, err, want)
				}
			}
		})
	}
	wg.Wait()
}

func TestReaperSignal(t *testing.T) {
	p, err := testReaper.Start(helper("sleep"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	status, err := p.Wait(testContext(t))
	if err != nil || exitCode(status) != 137 || describe(status) != "killed by SIGKILL" {
		t.Errorf("%s, %v", describe(status), err)
	}
	if err := p.Signal(unix.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal after the end: %v", err)
	}
}

func TestReaperRefuses(t *testing.T) {
	cancelled := exec.CommandContext(context.Background(), "/bin/true")
	buffered := exec.Command("/bin/true")
	buffered.Stdout = new(strings.Builder)
	for _, cmd := range []*exec.Cmd{cancelled, buffered} {
		if _, err := testReaper.Start(cmd); err == nil || !strings.Contains(err.Error(), "needs cmd.Wait") {
			t.Errorf("error %v", err)
		}
	}
	if _, err := testReaper.Start(&exec.Cmd{Path: "/nonexistent"}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("missing program: %v", err)
	}
}
