//go:build root

package sysgenid

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// These tests are about clients that sleep on the mapped page.

func init() { roles["watcher"] = watcherRole }

// watcherRole is a service that watches. With "filtered", its system calls are filtered and FUTEX_WAITV is refused.
func watcherRole(args []string) error {
	if len(args) > 1 {
		if err := filterCalls(args[1] == "filtered"); err != nil {
			return err
		}
	}
	c, err := Open(args[0])
	if err != nil {
		return err
	}
	if err := c.Track(true); err != nil {
		return err
	}
	fmt.Println("watching")
	go func() { // ends with its standard input
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		}
		os.Exit(0)
	}()
	return c.Watch(context.Background(), func(_ context.Context, gen uint32) error {
		fmt.Println(gen)
		return nil
	})
}

// filterCalls has futex_waitv fail with EPERM in all threads, as filters of container engines have what they do not know.
func filterCalls(refuse bool) error {
	action := uint32(unix.SECCOMP_RET_ALLOW)
	if refuse {
		action = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	}
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // seccomp_data.nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_FUTEX_WAITV, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: action},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	all := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&all)))
	if errno != 0 {
		return errno
	}
	return nil
}

// asleep starts a watcher and waits until it sleeps.
func asleep(t *testing.T, d *device) *helper {
	t.Helper()
	w := start(t, 0, "watcher", d.path)
	if got := w.receive(); got != "watching" {
		t.Fatalf("watcher: %s", got)
	}
	d.awaitAsleep(w.cmd.Process.Pid)
	return w
}

// wakes says whether clients of the device sleep on its page.
func (d *device) wakes() bool {
	d.t.Helper()
	m, err := mapCounter(d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	defer unmap(m.page)
	return m.wakes()
}

// awaitAsleep waits until a process waits for the device in the way of the client.
func (d *device) awaitAsleep(pid int) {
	d.t.Helper()
	if d.wakes() {
		awaitCall(d.t, pid, unix.SYS_FUTEX_WAITV)
	} else {
		awaitPolling(d.t, pid)
	}
}

func (h *helper) says(want uint32) {
	h.t.Helper()
	if got := h.receive(); got != strconv.Itoa(int(want)) {
		h.t.Errorf("watcher adjusted to %s, want %d", got, want)
	}
}

// TestAsleep sends signals to who sleeps, freezes and kills it.
func TestAsleep(t *testing.T) {
	group := newCgroup(t)
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		t.Run("handled signal", func(t *testing.T) {
			w := asleep(t, d)
			signalThreads(t, w.cmd.Process.Pid, syscall.SIGURG)
			w.says(d.bump(0))
			d.want("<nil>", "wait 60000")
			w.end()
		})
		t.Run("SIGSTOP", func(t *testing.T) {
			w := asleep(t, d)
			pid := w.cmd.Process.Pid
			stop(t, pid)
			gen := d.bump(0)
			d.want("context deadline exceeded", "wait 1")
			wantErr(t, "continue", syscall.Kill(pid, syscall.SIGCONT), 0)
			w.says(gen)
			d.want("<nil>", "wait 60000")
			w.end()
		})
		t.Run("freeze", func(t *testing.T) {
			w := asleep(t, d)
			putFile(t, filepath.Join(group, "cgroup.procs"), strconv.Itoa(w.cmd.Process.Pid))
			putFile(t, filepath.Join(group, "cgroup.freeze"), "1")
			awaitFrozen(t, group)
			gen := d.bump(0)
			d.want("context deadline exceeded", "wait 1")
			putFile(t, filepath.Join(group, "cgroup.freeze"), "0")
			w.says(gen)
			d.want("<nil>", "wait 60000")
			w.end()
		})
		t.Run("SIGKILL", func(t *testing.T) {
			w := asleep(t, d)
			wantErr(t, "kill", syscall.Kill(w.cmd.Process.Pid, syscall.SIGKILL), 0)
			_ = w.cmd.Wait()
			d.want("ok", "open 0")
			d.bump(0)
			d.want("<nil>", "wait 60000")
		})
	})
}

// TestAsleepUntilServedAgain: who sleeps on the page of a connection that broke finds the next one.
func TestAsleepUntilServedAgain(t *testing.T) {
	lookOften(t)
	inModes(t, func(t *testing.T, d *device, mode Mode) {
		c := openClient(t, d.path)
		if err := c.Track(true); err != nil {
			t.Fatal(err)
		}
		got := waiting(t, d, c)
		abort(t, d.path)
		d.awaitLog("serving " + d.path + " again")
		d.awaitTracked(1)
		d.bump(42)
		if gen := <-got; gen != 42 {
			t.Errorf("woke at %d", gen)
		}
		goesOn(t, d, c)
	})
}

// TestAsleepOverARestart: the server dies and can wake nobody.
func TestAsleepOverARestart(t *testing.T) {
	lookOften(t)
	inModes(t, func(t *testing.T, d *device, mode Mode) {
		c := openClient(t, d.path)
		if err := c.Track(true); err != nil {
			t.Fatal(err)
		}
		got := waiting(t, d, c)
		wantErr(t, "kill", d.cmd.Process.Kill(), 0)
		_ = d.cmd.Wait()
		next := start(t, 0, "server", d.path, strconv.Itoa(int(mode)), "0")
		if answer := next.receive(); answer != "serving "+mode.String() {
			t.Fatalf("next server: %s", answer)
		}
		again := &device{helper: next, path: d.path}
		again.awaitTracked(1)
		again.bump(42)
		if gen := <-got; gen != 42 {
			t.Errorf("woke at %d", gen)
		}
		goesOn(t, again, c)
	})
}

func lookOften(t *testing.T) {
	every, again := lookEvery, lookAgain
	lookEvery, lookAgain = 50*time.Millisecond, 50*time.Millisecond
	t.Cleanup(func() { lookEvery, lookAgain = every, again })
}

// waiting starts a Wait and returns when it sleeps.
func waiting(t *testing.T, d *device, c *Client) <-chan uint32 {
	t.Helper()
	got := make(chan uint32, 1)
	go func() {
		gen, err := c.Wait(t.Context())
		if err != nil {
			t.Error(err)
		}
		got <- gen
	}()
	d.awaitAsleep(os.Getpid())
	return got
}

func (d *device) awaitTracked(n int) {
	d.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		tracked := 0
		for _, w := range d.watchers("watchers") {
			if w.Tracked {
				tracked++
			}
		}
		if tracked == n {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("%d tracked, want %d", tracked, n)
		}
	}
}

// TestAsleepTogether: many clients of a process share one thread, and one whose context ends disturbs no other.
func TestAsleepTogether(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		if !d.wakes() {
			t.Skip("where each acknowledgement drops the page, clients poll: Linux 6.9, page cache")
		}
		const n = 50
		var clients [n]*Client
		var got [n]<-chan uint32
		for i := range n {
			clients[i] = openClient(t, d.path)
			if err := clients[i].Track(true); err != nil {
				t.Fatal(err)
			}
			got[i] = waiting(t, d, clients[i])
		}
		ctx, cancel := context.WithCancel(t.Context())
		other := openClient(t, d.path)
		ended := make(chan error, 1)
		go func() {
			_, err := other.Wait(ctx)
			ended <- err
		}()
		if asleep := threadsIn(t, unix.SYS_FUTEX_WAITV); asleep > 1 {
			t.Errorf("%d threads sleep for %d clients", asleep, n)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Wait with a context that ended: %v", err)
		}
		gen := d.bump(0)
		for i := range n {
			if woke := <-got[i]; woke != gen {
				t.Errorf("client %d woke at %d, want %d", i, woke, gen)
			}
			if err := clients[i].Ack(gen); err != nil {
				t.Error(err)
			}
		}
		d.want("<nil>", "wait 60000")
		for _, c := range append(clients[:], other) {
			c.Close()
		}
		for deadline := time.Now().Add(patience); threadsIn(t, unix.SYS_FUTEX_WAITV) > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("a thread sleeps on after the last client was closed")
			}
		}
	})
}

// threadsIn counts the threads of this process that are in a system call.
func threadsIn(t *testing.T, call int) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/syscall")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, _ := os.ReadFile(f)
		if strings.HasPrefix(string(text), strconv.Itoa(call)+" ") {
			n++
		}
	}
	return n
}

// TestAwakeWithoutFutex: where the kernel refuses, and where the page does not promise to wake, clients poll.
func TestAwakeWithoutFutex(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		w := start(t, 0, "watcher", d.path, "filtered")
		if got := w.receive(); got != "watching" {
			t.Fatalf("watcher: %s", got)
		}
		awaitPolling(t, w.cmd.Process.Pid)
		w.says(d.bump(0))
		d.want("<nil>", "wait 60000")
		w.says(d.bump(0))
		d.want("<nil>", "wait 60000")
	})
}

func TestAwakeOnAnotherPage(t *testing.T) {
	path := filepath.Join(place, t.Name())
	if err := os.WriteFile(path, make([]byte, PageSize), 0o644); err != nil {
		t.Fatal(err)
	}
	c := openClient(t, path)
	got := make(chan uint32, 1)
	go func() {
		gen, err := c.Wait(t.Context())
		if err != nil {
			t.Error(err)
		}
		got <- gen
	}()
	awaitPolling(t, os.Getpid())
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(binary.NativeEndian.AppendUint32(nil, 7), 0); err != nil {
		t.Fatal(err)
	}
	if gen := <-got; gen != 7 {
		t.Errorf("woke at %d", gen)
	}
}

// TestCAsleep: a C program that sleeps learns that its server was replaced.
func TestCAsleep(t *testing.T) {
	program := compile(t, "watch", watchC)
	d := serveIn(t, ModePassthrough, 0)
	cmd := exec.Command(program, d.path)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal("the example does not watch")
	}
	awaitCall(t, cmd.Process.Pid, unix.SYS_FUTEX)
	abort(t, d.path)
	if err := cmd.Wait(); err == nil || !strings.Contains(said.String(), unix.ENOTCONN.Error()) &&
		!strings.Contains(strings.ToLower(said.String()), "not connected") {
		t.Errorf("%v, said %q", err, said.String())
	}
}
