//go:build root

package sysgenid

import (
	"encoding/binary"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func open(t testing.TB, path string, flags int) int {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func readGen(fd int) (uint32, error) {
	var b [4]byte
	n, err := unix.Read(fd, b[:])
	if err == nil && n != 4 {
		err = unix.EIO
	}
	return binary.NativeEndian.Uint32(b[:]), err
}

func rawIoctl(fd int, cmd, arg uintptr) error { return ioctlOnce(uintptr(fd), cmd, arg) }

func load(mem []byte) uint32 { return loadWord(mem) }

func pollNow(fd, ms int) int16 {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | pollRdNorm | unix.POLLOUT}}
	if _, err := unix.Poll(fds, ms); err != nil {
		return -1
	}
	return fds[0].Revents
}

func mapShared(t testing.TB, path string) []byte {
	t.Helper()
	fd := open(t, path, unix.O_RDONLY)
	mem, err := unix.Mmap(fd, 0, PageSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatalf("mmap: %v", err)
	}
	t.Cleanup(func() { _ = unix.Munmap(mem) })
	return mem
}

func wantErr(t *testing.T, what string, err error, want syscall.Errno) {
	t.Helper()
	if want == 0 && err == nil {
		return
	}
	if err != want {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestRead(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		fd := open(t, d.path, unix.O_RDWR|unix.O_NONBLOCK)
		buf := make([]byte, 64)
		for _, row := range []struct {
			name string
			size int
			n    int
			err  syscall.Errno
		}{
			{"nothing", 0, 0, 0},
			{"1 byte", 1, 0, unix.EINVAL},
			{"3 bytes", 3, 0, unix.EINVAL},
			{"up to date", 4, 0, unix.EAGAIN},
			{"up to date, large", 64, 0, unix.EAGAIN},
		} {
			t.Run(row.name, func(t *testing.T) {
				n, err := unix.Read(fd, buf[:row.size])
				wantErr(t, "read", err, row.err)
				if err == nil && n != row.n {
					t.Errorf("read %d bytes, want %d", n, row.n)
				}
			})
		}
		gen := d.bump(0)
		for _, size := range []int{4, 64, 4} { // again and again
			n, err := unix.Read(fd, buf[:size])
			if n != 4 || err != nil || binary.NativeEndian.Uint32(buf) != gen {
				t.Fatalf("outdated read of %d: %d bytes, %v, %v", size, n, buf[:4], err)
			}
		}
		wantErr(t, "outdated read of 2", second(unix.Read(fd, buf[:2])), unix.EINVAL)
		wantErr(t, "acknowledge", acknowledge(uintptr(fd), gen), 0)
		wantErr(t, "read after it", second(unix.Read(fd, buf[:4])), unix.EAGAIN)
	})
}

func second(_ int, err error) error { return err }

func TestReadBlocksUntilBump(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		c := start(t, 0, "client")
		c.want("0", "open %s", d.path)
		c.send("read")
		d.blocked(1)
		d.bump(7)
		if got := c.receive(); got != "7" {
			t.Errorf("blocked read: %s", got)
		}
		d.blocked(0)
	})
}

func TestWrite(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		d.bump(5)
		fd := open(t, d.path, unix.O_RDWR|unix.O_NONBLOCK)
		d.bump(0)
		for _, row := range []struct {
			name string
			data []byte
			err  syscall.Errno
		}{
			{"1 byte", make([]byte, 1), unix.ENOBUFS},
			{"3 bytes", make([]byte, 3), unix.ENOBUFS},
			{"5 bytes", make([]byte, 5), unix.ENOBUFS},
			{"8 bytes", make([]byte, 8), unix.ENOBUFS},
			{"two pages", make([]byte, 8192), unix.ENOBUFS},
			{"an old generation", binary.NativeEndian.AppendUint32(nil, 5), unix.EINVAL},
			{"a generation to come", binary.NativeEndian.AppendUint32(nil, 7), unix.EINVAL},
		} {
			t.Run(row.name, func(t *testing.T) {
				wantErr(t, "write", second(unix.Write(fd, row.data)), row.err)
				if gen, err := readGen(fd); gen != 6 || err != nil {
					t.Errorf("afterwards: %d, %v: a refused write changed something", gen, err)
				}
			})
		}
		n, err := unix.Write(fd, binary.NativeEndian.AppendUint32(nil, 6))
		if n != 4 || err != nil {
			t.Errorf("acknowledge: %d, %v", n, err)
		}
		wantErr(t, "acknowledge twice", acknowledge(uintptr(fd), 6), 0)
		only := open(t, d.path, unix.O_WRONLY)
		wantErr(t, "write-only descriptor", acknowledge(uintptr(only), 6), 0)
		truncating := open(t, d.path, unix.O_WRONLY|unix.O_TRUNC)
		wantErr(t, "O_TRUNC descriptor", acknowledge(uintptr(truncating), 6), 0)
	})
}

func TestPoll(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		const readable = unix.POLLIN | pollRdNorm
		fd := open(t, d.path, unix.O_RDWR)
		if got := pollNow(fd, 0); got != 0 {
			t.Errorf("up to date: %#x", got)
		}
		gen := d.bump(0)
		for range 2 {
			if got := pollNow(fd, 0); got != readable {
				t.Errorf("outdated: %#x", got)
			}
		}
		wantErr(t, "acknowledge", acknowledge(uintptr(fd), gen), 0)
		if got := pollNow(fd, 0); got != 0 {
			t.Errorf("acknowledged: %#x", got)
		}
		reader := open(t, d.path, unix.O_RDONLY)
		woken := make(chan int16)
		go func() { woken <- pollNow(reader, -1) }()
		d.want("ok", "polled 1")
		d.bump(0)
		if got := <-woken; got != readable {
			t.Errorf("woken: %#x", got)
		}
	})
}

// TestEpollEdge finds a server that forgets whom to notify after one event.
func TestEpollEdge(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		fd := open(t, d.path, unix.O_RDWR|unix.O_NONBLOCK)
		ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(ep)
		event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(fd)}
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			gen := d.bump(0)
			n, err := unix.EpollWait(ep, make([]unix.EpollEvent, 4), int(patience.Milliseconds()))
			if n != 1 || err != nil {
				t.Fatalf("generation %d: %d events, %v", gen, n, err)
			}
			wantErr(t, "acknowledge", acknowledge(uintptr(fd), gen), 0)
		}
	})
}

func TestTracking(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		fd := open(t, d.path, unix.O_RDWR)
		other := open(t, d.path, unix.O_RDWR)
		outdated := func(want int) {
			t.Helper()
			if got := len(d.watchers("outdated")); got != want {
				t.Errorf("%d outdated watchers, want %d", got, want)
			}
		}
		d.bump(0)
		outdated(0)
		wantErr(t, "track", rawIoctl(fd, SetWatcherTracking, 1), 0)
		outdated(1) // it was outdated already
		wantErr(t, "track again", rawIoctl(fd, SetWatcherTracking, 42), 0)
		outdated(1)
		wantErr(t, "untrack", rawIoctl(fd, SetWatcherTracking, 0), 0)
		outdated(0)
		wantErr(t, "track", rawIoctl(fd, SetWatcherTracking, 1), 0)
		wantErr(t, "acknowledge", acknowledge(uintptr(fd), 1), 0)
		outdated(0)
		wantErr(t, "track other", rawIoctl(other, SetWatcherTracking, 1), 0)
		outdated(1)
		d.bump(0)
		outdated(2)
		unix.Close(other)
		d.want("ok", "open 1")
		outdated(1)
		w := d.watchers("outdated")[0]
		if w.PID != unix.Getpid() || w.Comm == "" || w.Acknowledged != 1 || !w.Tracked || w.OutdatedSince.IsZero() {
			t.Errorf("watcher: %+v", w)
		}
	})
}

func TestWaitWatchers(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		watcher := open(t, d.path, unix.O_RDWR)
		overseer := open(t, d.path, unix.O_RDWR)
		wantErr(t, "nobody tracked", rawIoctl(overseer, WaitWatchers, 0), 0)
		wantErr(t, "track", rawIoctl(watcher, SetWatcherTracking, 1), 0)
		wantErr(t, "nobody outdated", rawIoctl(overseer, WaitWatchers, 0), 0)
		gen := d.bump(0)
		wantErr(t, "outdated oneself", rawIoctl(overseer, WaitWatchers, 0), unix.EINTR)
		wantErr(t, "acknowledge", acknowledge(uintptr(overseer), gen), 0)
		wantErr(t, "time-out", rawIoctl(overseer, WaitWatchers, 20), unix.ETIME)

		result := make(chan error, 2)
		wait := func() { result <- rawIoctl(overseer, WaitWatchers, 0) }
		go wait()
		d.blocked(1)
		wantErr(t, "acknowledge", acknowledge(uintptr(watcher), gen), 0)
		wantErr(t, "all acknowledged", <-result, 0)

		gen = d.bump(0)
		wantErr(t, "acknowledge", acknowledge(uintptr(overseer), gen), 0)
		go wait()
		d.blocked(1)
		gen = d.bump(0)
		wantErr(t, "becoming outdated", <-result, unix.EINTR)

		wantErr(t, "acknowledge", acknowledge(uintptr(overseer), gen), 0)
		go wait()
		d.blocked(1)
		wantErr(t, "untrack", rawIoctl(watcher, SetWatcherTracking, 0), 0)
		wantErr(t, "untracked", <-result, 0)

		wantErr(t, "track", rawIoctl(watcher, SetWatcherTracking, 1), 0)
		go wait()
		d.blocked(1)
		unix.Close(watcher)
		wantErr(t, "closed", <-result, 0)
	})
}

func TestTrigger(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		fd := open(t, d.path, unix.O_RDWR|unix.O_NONBLOCK)
		for _, row := range []struct {
			least uintptr
			want  uint32
		}{{0, 1}, {0, 2}, {2, 3}, {3, 4}, {100, 100}, {7, 101}, {1<<32 - 2, 1<<32 - 2}, {1<<32 - 1, 1<<32 - 1}} {
			wantErr(t, "trigger", rawIoctl(fd, TriggerGenUpdate, row.least), 0)
			if gen, err := readGen(fd); gen != row.want || err != nil {
				t.Errorf("trigger %d: %d, %v, want %d", row.least, gen, err, row.want)
			}
		}
		for _, cmd := range []uintptr{0xE400, 0xE404, 0xE4FF, 0x5401} {
			wantErr(t, "other ioctl", rawIoctl(fd, cmd, 0), unix.EINVAL)
		}
	})
}

func TestTriggerUnprivileged(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		c := start(t, ownNamespace, "client")
		c.want("0", "open %s", d.path)
		c.want("EACCES", "trigger 9")
		c = start(t, 65534, "client")
		c.want("0", "open %s", d.path)
		c.want("EACCES", "trigger 9")
		d.want("0", "generation")
		d.bump(0)
		c.want("1", "read")
		c.want("0", "track 1")
		c.want("0", "write 1") // may watch and acknowledge
		c.want("0", "wait 0")
		c.want("0", "openro %s", d.path)
		c.want("0", "map")
		c.want("1", "load")
	})
}

func TestMap(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, mode Mode) {
		d.bump(0)
		mem := mapShared(t, d.path)
		for range 3 {
			if got := load(mem); got != 1 {
				t.Fatalf("mapped counter %d, want 1", got)
			}
		}
		if gen := d.bump(50); load(mem) != gen {
			t.Errorf("mapped counter %d, want %d", load(mem), gen)
		}
		if bits := loadWord(mem[4:]); bits != pageWakes && !(mode == ModePageCache && bits == 0) {
			t.Errorf("the page's second word is %#x", bits)
		}
		for i, b := range mem[8:] {
			if b != 0 {
				t.Fatalf("byte %d of the page is %#x", i+8, b)
			}
		}
		fd := open(t, d.path, unix.O_RDONLY)
		for _, row := range []struct {
			name         string
			length, prot int
			offset       int64
		}{
			{"writable", PageSize, unix.PROT_READ | unix.PROT_WRITE, 0},
			{"write only", PageSize, unix.PROT_WRITE, 0},
		} {
			t.Run(row.name, func(t *testing.T) {
				if _, err := unix.Mmap(fd, row.offset, row.length, row.prot, unix.MAP_SHARED); err == nil {
					t.Error("was allowed")
				}
			})
		}
		wantErr(t, "mprotect", unix.Mprotect(mem, unix.PROT_READ|unix.PROT_WRITE), unix.EACCES)
		small, err := unix.Mmap(fd, 0, 4, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil || binary.NativeEndian.Uint32(small) != 50 {
			t.Errorf("mapping of 4 bytes: %v, %v", small, err)
		}
		_ = unix.Munmap(small)
	})
}
