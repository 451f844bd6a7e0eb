//go:build root

package sysgenid

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// abort ends the FUSE connection of the device, as an operator can.
func abort(t *testing.T, path string) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	abortConnection(t, strconv.Itoa(int(unix.Minor(st.Dev))))
}

func abortConnection(t *testing.T, number string) {
	t.Helper()
	dir := filepath.Join(place, "fusectl")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", dir, "fusectl", 0, ""); err != nil {
		t.Skipf("no fusectl filesystem: %v", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	putFile(t, filepath.Join(dir, number, "abort"), "1")
}

// TestAbortedShelf aborts the connection of the page alone.
func TestAbortedShelf(t *testing.T) {
	d := serveIn(t, ModePassthrough, 0)
	number := d.ask("shelf")
	if number == "none" {
		t.Skip("kernel with memfd seals on FUSE passthrough: there is no shelf")
	}
	c := openClient(t, d.path)
	if err := c.Track(true); err != nil {
		t.Fatal(err)
	}
	abortConnection(t, number)
	d.awaitLog("serving " + d.path + " again")
	d.bump(42)
	if got := load(mapShared(t, d.path)); got != 42 {
		t.Errorf("a new mapping shows %d, want 42", got)
	}
	goesOn(t, d, c)
}

func (d *device) awaitLog(text string) string {
	d.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if log := d.ask("log"); strings.Contains(log, text) {
			return log
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("never logged: %s", text)
		}
	}
}

// TestAborted aborts the connection under the device's users: it is served
// again, goes on counting, and the client library goes on with it.
func TestAborted(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, mode Mode) {
		c := openClient(t, d.path)
		if err := c.Track(true); err != nil {
			t.Fatal(err)
		}
		reader := start(t, 0, "client")
		reader.want("0", "open %s", d.path)
		reader.want("0", "openmap %s", d.path)
		reader.send("read")
		d.blocked(1)
		abort(t, d.path)
		if got := reader.receive(); got != "ECONNABORTED" && got != "ENOTCONN" {
			t.Errorf("blocked reader: %s", got)
		}
		log := d.awaitLog("serving " + d.path + " again")
		withinASecond(t, d, log)
		if !strings.Contains(log, "tracked watchers lost: ") || strings.Contains(log, "lost: none") {
			t.Errorf("the lost watcher was not named: %s", log)
		}
		d.bump(42)
		if got := load(mapShared(t, d.path)); got != 42 {
			t.Errorf("a new mapping shows %d, want 42", got)
		}
		if mode == ModePassthrough {
			reader.want("42", "load") // the page lives on
		}
		goesOn(t, d, c)
	})
}

// withinASecond counts the attempts to serve again that failed: what is waited between them doubles from 10 ms, so
// that six are 0.63 s.
func withinASecond(t *testing.T, d *device, log string) {
	t.Helper()
	if failed := strings.Count(log, "serve "+d.path+" again: "); failed > 6 {
		t.Errorf("served again only after %d attempts: %s", failed, log)
	} else {
		t.Logf("served again after %d failed attempts", failed)
	}
}

func TestUnmounted(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		d.bump(41)
		d.want("ok", "open 0")
		wantErr(t, "unmount", unix.Unmount(d.path, unix.MNT_DETACH), 0)
		d.awaitLog("serving " + d.path + " again")
		fd := open(t, d.path, unix.O_RDWR|unix.O_NONBLOCK)
		gen := d.bump(0)
		if got, err := readGen(fd); gen != 42 || got != 42 || err != nil {
			t.Errorf("bumped to %d, read %d, %v", gen, got, err)
		}
	})
}

// goesOn has a client whose connection broke notice, be tracked again, and
// acknowledge.
func goesOn(t *testing.T, d *device, c *Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	gen, err := c.Wait(ctx)
	if gen != 42 || err != nil {
		t.Fatalf("wait after the break: %d, %v", gen, err)
	}
	if err := c.Ack(gen); err != nil {
		t.Errorf("acknowledge after the break: %v", err)
	}
	d.bump(0)
	list := d.watchers("outdated")
	if len(list) != 1 || list[0].PID != os.Getpid() {
		t.Errorf("tracked after the break: %+v", list)
	}
	if gen, err := c.Wait(ctx); gen != 43 || err != nil {
		t.Errorf("next generation after the break: %d, %v", gen, err)
	}
}

func TestKilledServer(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, mode Mode) {
		d.bump(7)
		wantErr(t, "kill", d.cmd.Process.Kill(), 0)
		_ = d.cmd.Wait()
		next := start(t, 0, "server", d.path, strconv.Itoa(int(mode)), "0")
		if got := next.receive(); got != "serving "+mode.String() {
			t.Fatalf("next server: %s", got)
		}
		next.want("7", "generation") // the file below kept it
		next.want("<nil>", "close")
	})
}

func TestClosedServer(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		c := start(t, 0, "client")
		c.want("0", "open %s", d.path)
		c.send("read")
		d.blocked(1)
		d.want("<nil>", "close")
		if got := c.receive(); got != "ECONNABORTED" && got != "ENOTCONN" {
			t.Errorf("blocked read: %s", got)
		}
		d.want("closed", "close")
		d.want("0", "bump") // changes nothing
		if _, err := os.Lstat(d.path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("left behind: %v", err)
		}
	})
}

func TestSecondServer(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, mode Mode) {
		next := start(t, 0, "server", d.path, strconv.Itoa(int(mode)), "0")
		if got := next.receive(); !strings.Contains(got, unix.EBUSY.Error()) {
			t.Errorf("second server: %s", got)
		}
	})
}

func TestNotOverADevice(t *testing.T) {
	path := filepath.Join(place, t.Name())
	if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	if !IsNative(path) {
		t.Error("not taken for a driver's device")
	}
	if _, err := Serve(path, Options{}); !errors.Is(err, ErrNative) {
		t.Errorf("Serve over a character device: %v", err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600|os.ModeDevice|os.ModeCharDevice {
		t.Errorf("not left alone: %v, %v", st.Mode(), err)
	}
	// This one is /dev/null, which cannot be mapped; by then it is everyone's.
	if _, err := OpenNative(path); err == nil {
		t.Error("/dev/null was taken for sysgenid")
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o666 {
		t.Errorf("mode %v, %v; want 0666", st.Mode(), err)
	}
}

// TestNative uses our own device in the place of a driver's: another process
// serves it, so the calls are the same.
func TestNative(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		if _, err := OpenNative(d.path); !errors.Is(err, unix.ENODEV) {
			t.Errorf("OpenNative of no character device: %v", err)
		}
		n, err := openNative(d.path)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		watcher := open(t, d.path, unix.O_RDWR)
		wantErr(t, "track", rawIoctl(watcher, SetWatcherTracking, 1), 0)
		gen, err := n.Bump(9)
		if gen != 9 || err != nil || n.Generation() != 9 {
			t.Fatalf("Bump: %d, %v, generation %d", gen, err, n.Generation())
		}
		ended, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := n.Wait(ended); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait for one outdated: %v", err)
		}
		d.bump(0) // somebody else's: Wait must not take it for a failure
		wantErr(t, "acknowledge", acknowledge(uintptr(watcher), 10), 0)
		if err := n.Wait(t.Context()); err != nil {
			t.Errorf("Wait for none outdated: %v", err)
		}
	})
}

// TestFile is what is left without FUSE.
func TestFile(t *testing.T) {
	d := serveIn(t, ModeFile, 0)
	mem := mapShared(t, d.path)
	if gen := d.bump(3); load(mem) != gen {
		t.Errorf("mapped %d, want %d", load(mem), gen)
	}
	plain := start(t, 65534, "client")
	plain.want("0", "openro %s", d.path)
	plain.want("0", "map")
	plain.want("3", "load")
	plain.want("EACCES", "open %s", d.path)

	c := openClient(t, d.path)
	if err := c.Track(true); !errors.Is(err, ErrNoAcknowledge) {
		t.Errorf("Track: %v", err)
	}
	got := make(chan uint32)
	go func() {
		gen, err := c.Wait(context.Background())
		if err != nil {
			t.Error(err)
		}
		got <- gen
	}()
	d.bump(0)
	if gen := <-got; gen != 4 {
		t.Errorf("Wait: %d", gen)
	}
	if err := c.Ack(3); !errors.Is(err, ErrStale) {
		t.Errorf("Ack of an old generation: %v", err)
	}
	if err := c.Ack(4); err != nil {
		t.Error(err)
	}
	d.want("<nil>", "wait 0")
	d.want("null", "watchers")
}

// TestFallsBack runs where there is no /dev/fuse.
func TestFallsBack(t *testing.T) {
	var said []string
	s, err := Serve(filepath.Join(place, t.Name()), Options{
		Device: filepath.Join(place, "no-fuse"),
		Log:    func(format string, args ...any) { said = append(said, format) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Mode() != ModeFile || len(said) != 3 {
		t.Errorf("%s, said %q", s.Mode(), said)
	}
	if s.Bump(0) != 1 || s.Wait(t.Context()) != nil {
		t.Error("the file does not count")
	}
}

// TestOneProcessor serves with GOMAXPROCS=1: nothing may rely on two goroutines
// running at once.
func TestOneProcessor(t *testing.T) {
	t.Setenv("GOMAXPROCS", "1")
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		c := openClient(t, d.path)
		if err := c.Track(true); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			gen := d.bump(0)
			if got, err := c.Wait(t.Context()); got != gen || err != nil {
				t.Fatalf("Wait: %d, %v", got, err)
			}
			if err := c.Ack(gen); err != nil {
				t.Fatal(err)
			}
			d.want("<nil>", "wait 60000")
		}
	})
}

// TestOnChange: an overseer hears of every acknowledgement without looking.
func TestOnChange(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		fd := open(t, d.path, unix.O_RDWR)
		for _, call := range []struct {
			name string
			do   func() error
		}{
			{"track", func() error { return rawIoctl(fd, SetWatcherTracking, 1) }},
			{"bump", func() error { d.bump(0); return nil }},
			{"acknowledge", func() error { return acknowledge(uintptr(fd), 1) }},
			{"close", func() error { return unix.Close(fd) }},
		} {
			wantErr(t, call.name, call.do(), 0)
			d.want("ok", "changed")
		}
	})
}
