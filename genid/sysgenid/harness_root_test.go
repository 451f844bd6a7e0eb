//go:build root

package sysgenid

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// These tests need root, /proc and /dev/fuse, and nothing else: the compiled
// test binary runs in a bare guest. The tests run in a mount namespace of their
// own, on a tmpfs. The device is served by another process, started from the
// same binary, because a process must not touch a mount that it serves.

func init() {
	roles["server"] = serverRole
	roles["client"] = clientRole
	wrapper = inNamespace
}

const insideVariable = "SYSGENID_TEST_INSIDE"

// quiet keeps Go's scheduler from sending signals, each of which would end a
// blocked call with EINTR, to threads of the tests.
const quiet = "GODEBUG=asyncpreemptoff=1"

// place is the tmpfs of this run.
var place string

// inNamespace runs the tests in a child with its own mount namespace.
func inNamespace(run func() int) int {
	if os.Getenv(insideVariable) != "" {
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return run()
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests need root")
		return 1
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), insideVariable+"=1", quiet)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// prepare mounts a tmpfs over /mnt, or over what else there is: nobody outside
// sees it.
func prepare() error {
	for _, dir := range []string{"/mnt", "/tmp", "/run"} {
		if unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755") == nil {
			place = dir
			return os.Setenv("TMPDIR", dir)
		}
	}
	return errors.New("no folder to mount a tmpfs on: /mnt, /tmp or /run")
}

// helper is a child process that obeys lines on its standard input.
type helper struct {
	t    testing.TB
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
	errs *strings.Builder
}

// patience bounds waits for what the kernel and other processes do, on a machine that may be busy with other tests;
// nothing is asserted about time.
const patience = time.Minute

// ownNamespace as a uid is root with all capabilities in a new user namespace,
// and nobody outside.
const ownNamespace = -1

// start runs a helper in a role. Arguments are strings, or files to inherit
// from descriptor 3 on.
func start(t testing.TB, uid int, role string, args ...any) *helper {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	for _, a := range args {
		if f, ok := a.(*os.File); ok {
			cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		} else {
			cmd.Args = append(cmd.Args, a.(string))
		}
	}
	cmd.Env = []string{roleVariable + "=" + role, quiet, "GOMAXPROCS=" + os.Getenv("GOMAXPROCS"), "GORACE=atexit_sleep_ms=0"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	switch {
	case uid == ownNamespace:
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65534, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65534, Size: 1}}
	case uid != 0:
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	h := &helper{t: t, cmd: cmd, errs: &strings.Builder{}}
	cmd.Stderr = h.errs
	var err error
	if h.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.out = bufio.NewScanner(out)
	h.out.Buffer(nil, 16<<20)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.end)
	return h
}

// end lets the helper finish by closing its input.
func (h *helper) end() {
	h.in.Close()
	_ = h.cmd.Wait()
	if h.errs.Len() > 0 && h.t.Failed() {
		h.t.Logf("helper said:\n%s", h.errs)
	}
}

func (h *helper) send(format string, args ...any) {
	h.t.Helper()
	if _, err := fmt.Fprintf(h.in, format+"\n", args...); err != nil {
		h.t.Fatalf("send to helper: %v\n%s", err, h.errs)
	}
}

func (h *helper) receive() string {
	h.t.Helper()
	if !h.out.Scan() {
		h.t.Fatalf("helper ended: %v\n%s", h.out.Err(), h.errs)
	}
	return h.out.Text()
}

// ask sends a line and returns the answer's line.
func (h *helper) ask(format string, args ...any) string {
	h.t.Helper()
	h.send(format, args...)
	return h.receive()
}

// want asks and compares.
func (h *helper) want(answer, format string, args ...any) {
	h.t.Helper()
	if got := h.ask(format, args...); got != answer {
		h.t.Errorf("%s: %s, want %s", fmt.Sprintf(format, args...), got, answer)
	}
}

// device is a served device and the process that serves it.
type device struct {
	*helper
	path string
}

// serveIn starts a server in exactly the given mode.
func serveIn(t testing.TB, mode Mode, limit int) *device {
	t.Helper()
	path := filepath.Join(place, strings.ReplaceAll(t.Name(), "/", "_"))
	h := start(t, 0, "server", path, strconv.Itoa(int(mode)), strconv.Itoa(limit))
	got := h.receive()
	if mode == ModePassthrough && strings.Contains(got, "offers no FUSE_PASSTHROUGH") {
		t.Skip("kernel without FUSE_PASSTHROUGH: Linux 6.9, CONFIG_FUSE_PASSTHROUGH")
	}
	if got != "serving "+mode.String() {
		t.Fatalf("server: %s", got)
	}
	return &device{h, path}
}

// inModes runs a test against a device in both FUSE modes.
func inModes(t *testing.T, f func(t *testing.T, d *device, mode Mode)) {
	for _, mode := range []Mode{ModePassthrough, ModePageCache} {
		t.Run(mode.String(), func(t *testing.T) { f(t, serveIn(t, mode, 0), mode) })
	}
}

func (d *device) bump(least uint32) uint32 {
	d.t.Helper()
	n, err := strconv.ParseUint(d.ask("bump %d", least), 10, 32)
	if err != nil {
		d.t.Fatal(err)
	}
	return uint32(n)
}

func (d *device) watchers(command string) (list []Watcher) {
	d.t.Helper()
	if err := json.Unmarshal([]byte(d.ask("%s", command)), &list); err != nil {
		d.t.Fatal(err)
	}
	return list
}

// blocked waits until n requests are blocked in the server.
func (d *device) blocked(n int) {
	d.t.Helper()
	d.want("ok", "blocked %d", n)
}

func serverRole(args []string) error {
	mode, _ := strconv.Atoi(args[1])
	limit, _ := strconv.Atoi(args[2])
	var changes atomic.Int64
	var mu sync.Mutex
	var lines []string
	changed := make(chan struct{}, 1)
	s, err := Serve(args[0], Options{
		Mode:      Mode(mode),
		MaxPerUID: limit,
		OnChange: func() {
			changes.Add(1)
			select {
			case changed <- struct{}{}:
			default:
			}
		},
		Log: func(format string, args ...any) {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, fmt.Sprintf(format, args...))
			fmt.Fprintf(os.Stderr, format+"\n", args...)
		},
	})
	if err != nil {
		fmt.Println(strings.ReplaceAll(err.Error(), "\n", "; "))
		return nil
	}
	defer s.Close()
	fmt.Println("serving", s.Mode())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var command string
		var n uint64
		_, _ = fmt.Sscan(in.Text(), &command, &n)
		switch command {
		case "bump":
			fmt.Println(s.Bump(uint32(n)))
		case "generation":
			fmt.Println(s.Generation())
		case "changes":
			fmt.Println(changes.Load())
		case "changed": // waits for a call of OnChange
			<-changed
			fmt.Println("ok")
		case "watchers":
			_ = json.NewEncoder(os.Stdout).Encode(s.Watchers())
		case "outdated":
			_ = json.NewEncoder(os.Stdout).Encode(s.Outdated())
		case "wait":
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(n)*time.Millisecond)
			fmt.Println(s.Wait(ctx))
			cancel()
		case "fan":
			fmt.Println(fan(s))
		case "shelf":
			fmt.Println(shelfConnection(s))
		case "blocked":
			fmt.Println(awaitBlocked(s, int(n)))
		case "open": // waits until n descriptions are open
			for len(s.Watchers()) != int(n) {
				time.Sleep(time.Millisecond)
			}
			fmt.Println("ok")
		case "polled": // waits until n descriptions are known to be polled
			for polled(s) != int(n) {
				time.Sleep(time.Millisecond)
			}
			fmt.Println("ok")
		case "log":
			mu.Lock()
			fmt.Println(strings.Join(lines, " | "))
			mu.Unlock()
		case "close":
			fmt.Println(s.Close())
		}
	}
	return nil
}

// awaitBlocked looks until n requests are blocked: the server has no event for
// that, which nobody but a test needs.
func awaitBlocked(s *Server, n int) string {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		s.core.mu.Lock()
		now := len(s.core.readers) + len(s.core.waiters)
		s.core.mu.Unlock()
		if now == n {
			return "ok"
		}
	}
	return "never"
}

// shelfConnection is the number of the shelf's connection for fusectl.
func shelfConnection(s *Server) string {
	var st unix.Stat_t
	if s.shelf == nil || unix.Fstat(int(s.shelf.page.Fd()), &st) != nil {
		return "none"
	}
	return strconv.Itoa(int(unix.Minor(st.Dev)))
}

func polled(s *Server) int {
	s.core.mu.Lock()
	defer s.core.mu.Unlock()
	return len(s.core.pollers)
}

// clientRole makes calls on one descriptor, 3 if it was inherited, and prints
// what they return: a number, a value, or the error's name.
func clientRole(args []string) error {
	c := &rawClient{fd: 3}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var command, arg string
		_, _ = fmt.Sscan(in.Text(), &command, &arg)
		n, _ := strconv.ParseUint(arg, 0, 64)
		fmt.Println(c.do(command, arg, n))
	}
	return nil
}

type rawClient struct {
	fd  int
	mem []byte
}

func (c *rawClient) do(command, arg string, n uint64) string {
	switch command {
	case "open":
		return c.open(arg, unix.O_RDWR)
	case "openro":
		return c.open(arg, unix.O_RDONLY)
	case "close":
		return outcome(0, unix.Close(c.fd))
	case "pid":
		return strconv.Itoa(os.Getpid())
	case "read":
		gen, err := readGen(c.fd)
		return outcome(int64(gen), err)
	case "write":
		return outcome(0, acknowledge(uintptr(c.fd), uint32(n)))
	case "track":
		return outcome(0, rawIoctl(c.fd, SetWatcherTracking, uintptr(n)))
	case "wait":
		return outcome(0, rawIoctl(c.fd, WaitWatchers, uintptr(n)))
	case "trigger":
		return outcome(0, rawIoctl(c.fd, TriggerGenUpdate, uintptr(n)))
	case "map":
		var err error
		c.mem, err = unix.Mmap(c.fd, 0, PageSize, unix.PROT_READ, unix.MAP_SHARED)
		return outcome(0, err)
	case "load":
		return strconv.Itoa(int(load(c.mem)))
	case "openmap": // maps, and keeps the descriptor that there was
		fd, err := unix.Open(arg, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return outcome(0, err)
		}
		defer unix.Close(fd)
		c.mem, err = unix.Mmap(fd, 0, PageSize, unix.PROT_READ, unix.MAP_SHARED)
		return outcome(0, err)
	case "mapwrite":
		_, err := unix.Mmap(c.fd, 0, PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		return outcome(0, err)
	case "protect":
		return outcome(0, unix.Mprotect(c.mem, unix.PROT_READ|unix.PROT_WRITE))
	case "truncate":
		return outcome(0, unix.Ftruncate(c.fd, int64(n)))
	case "allocate":
		return outcome(0, unix.Fallocate(c.fd, 0, 0, 8192))
	case "punch":
		return outcome(0, unix.Fallocate(c.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, PageSize))
	case "advise":
		return outcome(0, unix.Fadvise(c.fd, 0, PageSize, unix.FADV_DONTNEED))
	case "chmod":
		return outcome(0, unix.Fchmod(c.fd, uint32(n)))
	case "poll":
		return outcome(int64(pollNow(c.fd, int(n))), nil)
	}
	return "unknown command"
}

func (c *rawClient) open(path string, flags int) string {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	c.fd = fd
	return outcome(0, err)
}

func outcome(n int64, err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return strconv.FormatInt(n, 10)
}
