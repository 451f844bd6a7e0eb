//go:build root

package sysgenid

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSignals sends signals into the middle of every blocking call.
func TestSignals(t *testing.T) {
	calls := []struct{ name, line string }{{"read", "read"}, {"wait", "wait 0"}, {"wait with time-out", "wait 600000"}}
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		watcher := open(t, d.path, unix.O_RDWR)
		wantErr(t, "track", rawIoctl(watcher, SetWatcherTracking, 1), 0)
		gen := d.bump(0) // now there is somebody to wait for
		for _, call := range calls {
			blockedClient := func(t *testing.T) *helper {
				c := start(t, 0, "client")
				c.want("0", "open %s", d.path)
				c.want("0", "track 1")
				c.send("%s", call.line)
				d.blocked(1)
				return c
			}
			t.Run(call.name+", handled signal", func(t *testing.T) {
				c := blockedClient(t)
				wantErr(t, "signal", syscall.Kill(c.cmd.Process.Pid, syscall.SIGURG), 0)
				signalThreads(t, c.cmd.Process.Pid, syscall.SIGURG)
				if got := c.receive(); got != "EINTR" {
					t.Errorf("interrupted call: %s", got)
				}
				d.blocked(0)
				c.want("0", "write %d", gen) // and it still works
			})
			t.Run(call.name+", SIGKILL", func(t *testing.T) {
				c := blockedClient(t)
				wantErr(t, "kill", syscall.Kill(c.cmd.Process.Pid, syscall.SIGKILL), 0)
				_ = c.cmd.Wait() // does not return while a thread is stuck
				d.blocked(0)
				d.want("ok", "open 1")
			})
			t.Run(call.name+", SIGSTOP", func(t *testing.T) {
				c := blockedClient(t)
				pid := c.cmd.Process.Pid
				stop(t, pid)
				d.blocked(0)
				wantErr(t, "continue", syscall.Kill(pid, syscall.SIGCONT), 0)
				if got := c.receive(); got != "EINTR" {
					t.Errorf("stopped call: %s", got)
				}
			})
		}
		d.want("ok", "open 1")
		if got := len(d.watchers("outdated")); got != 1 {
			t.Errorf("%d outdated, want only the one of the test", got)
		}
	})
}

// TestSignalsInPoll: poll waits in the kernel and not in the server, which must forget who died in it.
func TestSignalsInPoll(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		polling := func(t *testing.T) *helper {
			c := start(t, 0, "client")
			c.want("0", "open %s", d.path)
			c.want("0", "track 1")
			c.send("poll 600000")
			d.want("ok", "polled 1")
			awaitPolling(t, c.cmd.Process.Pid)
			return c
		}
		t.Run("SIGKILL", func(t *testing.T) {
			c := polling(t)
			wantErr(t, "kill", syscall.Kill(c.cmd.Process.Pid, syscall.SIGKILL), 0)
			_ = c.cmd.Wait()
			d.want("ok", "polled 0")
			d.want("ok", "open 0")
			d.bump(0)
			d.want("<nil>", "wait 1") // nobody is waited for
		})
		t.Run("handled signal", func(t *testing.T) {
			c := polling(t)
			signalThreads(t, c.cmd.Process.Pid, syscall.SIGURG)
			if got := c.receive(); got != "-1" {
				t.Errorf("interrupted poll: %s", got)
			}
			c.want("0", "write %s", d.ask("generation"))
			c.end()
			d.want("ok", "open 0")
		})
		t.Run("SIGSTOP", func(t *testing.T) {
			c := polling(t)
			pid := c.cmd.Process.Pid
			stop(t, pid)
			gen := d.bump(0)
			d.want("context deadline exceeded", "wait 1")
			wantErr(t, "continue", syscall.Kill(pid, syscall.SIGCONT), 0)
			if got := c.receive(); got != strconv.Itoa(unix.POLLIN|pollRdNorm) && got != "-1" {
				t.Errorf("poll over a stop: %s", got)
			}
			c.want(strconv.Itoa(unix.POLLIN|pollRdNorm), "poll 0")
			c.want("0", "write %d", gen)
			d.want("<nil>", "wait 0")
		})
	})
}

// awaitPolling waits until a thread sleeps in poll: the server only knows that it was asked.
func awaitPolling(t testing.TB, pid int) {
	t.Helper()
	awaitCall(t, pid, pollNumber, unix.SYS_PPOLL)
}

// awaitCall waits until a thread sleeps in one of the system calls.
func awaitCall(t testing.TB, pid int, calls ...int) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		files, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task/*/syscall"))
		for _, f := range files {
			text, _ := os.ReadFile(f)
			number, _, _ := strings.Cut(string(text), " ")
			if n, err := strconv.Atoi(number); err == nil && slices.Contains(calls, n) {
				return
			}
		}
	}
	t.Fatalf("no thread sleeps in system call %d", calls)
}

// signalThreads sends a signal to every thread: the blocked one is not known.
func signalThreads(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	list, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		tid, _ := strconv.Atoi(e.Name())
		_ = unix.Tgkill(pid, tid, sig)
	}
}

// TestSharedReadersKilled kills one of two processes that block in a read of
// the same description: the other one goes on, and the first one dies.
func TestSharedReadersKilled(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, mode Mode) {
		fd := open(t, d.path, unix.O_RDWR|syscall.O_CLOEXEC)
		one, two := startWith(t, fd), startWith(t, fd)
		one.send("read")
		d.blocked(1)
		if mode == ModePassthrough {
			// No stream there: the second reader queues in the VFS, and a
			// signal reaches it only after the first one has left.
			d.bump(0)
			one.receive()
			return
		}
		two.send("read")
		d.blocked(2)
		wantErr(t, "kill", syscall.Kill(one.cmd.Process.Pid, syscall.SIGKILL), 0)
		_ = one.cmd.Wait()
		d.blocked(1)
		d.bump(0)
		if got := two.receive(); got != "1" {
			t.Errorf("the surviving reader got %s", got)
		}
	})
}

// TestFrozen freezes a cgroup in the middle of each blocking call, bumps, and
// thaws: the server and others go on, and the frozen one finds the generation.
func TestFrozen(t *testing.T) {
	group := newCgroup(t)
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		for _, call := range []string{"read", "wait 0", "wait 600000", "poll 600000"} {
			t.Run(call, func(t *testing.T) { frozenIn(t, d, group, call) })
		}
	})
}

func frozenIn(t *testing.T, d *device, group, call string) {
	slow := open(t, d.path, unix.O_RDWR) // whom a wait waits for
	wantErr(t, "track", rawIoctl(slow, SetWatcherTracking, 1), 0)
	before := d.bump(0)
	c := start(t, 0, "client")
	c.want("0", "open %s", d.path)
	c.want("0", "track 1")
	c.want("0", "openmap %s", d.path)
	c.send("%s", call)
	if pid := c.cmd.Process.Pid; strings.HasPrefix(call, "poll") {
		awaitPolling(t, pid)
	} else {
		d.blocked(1)
	}
	putFile(t, filepath.Join(group, "cgroup.procs"), strconv.Itoa(c.cmd.Process.Pid))
	putFile(t, filepath.Join(group, "cgroup.freeze"), "1")
	awaitFrozen(t, group)
	d.blocked(0)
	gen := d.bump(0)
	fd := open(t, d.path, unix.O_RDWR)
	wantErr(t, "acknowledge beside a frozen one", acknowledge(uintptr(fd), gen), 0)
	wantErr(t, "acknowledge beside a frozen one", acknowledge(uintptr(slow), gen), 0)
	d.want("context deadline exceeded", "wait 1")
	putFile(t, filepath.Join(group, "cgroup.freeze"), "0")
	// poll is restarted by the kernel; what FUSE had to give up is not.
	if got := c.receive(); got != "EINTR" && !strings.HasPrefix(call, "poll") {
		t.Errorf("frozen call: %s", got)
	}
	if gen != before+1 {
		t.Errorf("generation %d after %d", gen, before)
	}
	c.want(strconv.Itoa(int(gen)), "load")
	c.want(strconv.Itoa(int(gen)), "read")
	c.want("0", "write %d", gen)
	d.want("<nil>", "wait 0")
	c.end()
	unix.Close(slow)
	unix.Close(fd)
}

func newCgroup(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(place, "cgroup2")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", dir, "cgroup2", 0, ""); err != nil {
		t.Skipf("no cgroup v2 (CONFIG_CGROUPS): %v", err)
	}
	group := filepath.Join(dir, "sysgenid-test-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The kernel takes its time to empty it.
		for end := time.Now().Add(patience); os.Remove(group) != nil && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	})
	if _, err := os.Stat(filepath.Join(group, "cgroup.freeze")); err != nil {
		t.Skip("cgroup v2 without a freezer: Linux 5.2")
	}
	return group
}

func putFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0); err != nil {
		t.Fatal(err)
	}
}

// awaitFrozen waits for the kernel's event on cgroup.events.
func awaitFrozen(t *testing.T, group string) {
	t.Helper()
	f, err := os.Open(filepath.Join(group, "cgroup.events"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		var b [256]byte
		n, err := f.ReadAt(b[:], 0)
		if n == 0 {
			t.Fatal(err)
		}
		if strings.Contains(string(b[:n]), "frozen 1") {
			return
		}
		fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		if n, err := unix.Poll(fds, int(patience.Milliseconds())); n == 0 {
			t.Fatalf("not frozen after a minute: a thread is stuck in a call (%v)", err)
		}
	}
}

// stop stops a child and returns when it has.
func stop(t *testing.T, pid int) {
	t.Helper()
	wantErr(t, "stop", syscall.Kill(pid, syscall.SIGSTOP), 0)
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("not stopped: %v %v", status, err)
	}
}
