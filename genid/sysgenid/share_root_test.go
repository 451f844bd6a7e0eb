//go:build root

package sysgenid

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// startWith starts a client process that inherits fd as its descriptor 3.
func startWith(t *testing.T, fd int) *helper {
	t.Helper()
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(dup), "inherited")
	defer f.Close()
	return start(t, 0, "client", f)
}

func TestSharedByDup(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		fd := open(t, d.path, unix.O_RDWR|unix.O_NONBLOCK)
		dup, err := unix.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		apart := open(t, d.path, unix.O_RDWR|unix.O_NONBLOCK)
		wantErr(t, "track", rawIoctl(fd, SetWatcherTracking, 1), 0)
		gen := d.bump(0)
		wantErr(t, "acknowledge the copy", acknowledge(uintptr(dup), gen), 0)
		wantErr(t, "read the original", second(unix.Read(fd, make([]byte, 4))), unix.EAGAIN)
		wantErr(t, "read another description", second(unix.Read(apart, make([]byte, 4))), 0)
		d.want("null", "outdated")
		d.bump(0)
		unix.Close(fd) // the copy keeps it tracked
		if got := len(d.watchers("outdated")); got != 1 {
			t.Errorf("%d outdated after closing one of two descriptors, want 1", got)
		}
		unix.Close(dup)
		d.want("ok", "open 1")
		d.want("null", "outdated")
	})
}

func TestSharedByFork(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		fd := open(t, d.path, unix.O_RDWR|unix.O_NONBLOCK)
		child := startWith(t, fd)
		child.want("0", "track 1")
		d.bump(0)
		child.want("1", "read")
		child.want("0", "write 1")
		wantErr(t, "read after the child acknowledged", second(unix.Read(fd, make([]byte, 4))), unix.EAGAIN)
		d.bump(0)
		child.end()
		list := d.watchers("outdated")
		if len(list) != 1 {
			t.Fatalf("%d outdated after the child ended, want 1", len(list))
		}
		wantErr(t, "acknowledge", acknowledge(uintptr(fd), 2), 0)
		d.want("null", "outdated")
	})
}

func TestSharedBySocket(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pair[0])
		defer unix.Close(pair[1])
		fd := open(t, d.path, unix.O_RDWR|unix.O_NONBLOCK)
		wantErr(t, "track", rawIoctl(fd, SetWatcherTracking, 1), 0)
		if err := unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(fd), nil, 0); err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		gen := d.bump(0)
		if got := len(d.watchers("outdated")); got != 1 {
			t.Errorf("%d outdated while the descriptor is in flight, want 1", got)
		}
		oob := make([]byte, 64)
		_, n, _, _, err := unix.Recvmsg(pair[1], make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		messages, err := unix.ParseSocketControlMessage(oob[:n])
		if err != nil {
			t.Fatal(err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fds[0])
		wantErr(t, "acknowledge", acknowledge(uintptr(fds[0]), gen), 0)
		d.want("null", "outdated")
	})
}

func TestMapOutlivesClose(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		fd := open(t, d.path, unix.O_RDONLY)
		mem, err := unix.Mmap(fd, 0, 4, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Munmap(mem) }()
		unix.Close(fd)
		for range 3 {
			if gen := d.bump(0); load(mem) != gen {
				t.Errorf("mapping shows %d, want %d", load(mem), gen)
			}
		}
	})
}

// TestNoForging is about descriptors that an unprivileged user has opened for
// writing: they are for acknowledging, and never a way to the page.
func TestNoForging(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, mode Mode) {
		mem := mapShared(t, d.path)
		d.bump(0)
		c := start(t, 65534, "client")
		c.want("0", "openro %s", d.path)
		c.want("EACCES", "mapwrite")
		c.want("0", "map")
		c.want("EACCES", "protect")
		c.want("0", "open %s", d.path) // beside others for reading, with and without a mapping
		if sealed := mode == ModePassthrough && !strings.Contains(d.ask("log"), "second FUSE file"); sealed {
			c.want("0", "map") // as for a kernel driver's device
			c.want("EPERM", "mapwrite")
			c.want("EACCES", "protect")
		} else {
			c.want("ENODEV", "map")
			c.want("ENODEV", "mapwrite")
		}
		for _, call := range []string{"truncate 0", "truncate 9000", "allocate", "punch", "advise"} {
			c.ask("%s", call) // may succeed, but not show
			if load(mem) != 1 {
				t.Errorf("%s changed the page: %d", call, load(mem))
			}
		}
		if got := c.ask("chmod 0"); got != "EPERM" {
			t.Errorf("chmod: %s", got)
		}
		if gen := d.bump(0); load(mem) != gen {
			t.Errorf("the page is not alive afterwards: %d", load(mem))
		}
	})
}

// TestPrivateMapping covers faults through descriptors for writing, which must
// not be taken for reads.
func TestPrivateMapping(t *testing.T) {
	d := serveIn(t, ModePageCache, 0)
	d.bump(9)
	fd := open(t, d.path, unix.O_RDWR)
	mem, err := unix.Mmap(fd, 0, PageSize, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Skipf("kernel refuses private mappings of descriptors for writing: %v", err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	wantErr(t, "drop pages", unix.Madvise(mem, unix.MADV_DONTNEED), 0)
	if got := load(mem); got != 9 {
		t.Errorf("private mapping shows %d, want 9", got)
	}
	d.blocked(0)
}

// TestEviction has the page thrown out of the cache again and again while it is
// bumped: every fault must be answered, and no old value may stay.
func TestEviction(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		fd := open(t, d.path, unix.O_RDONLY)
		mem := mapShared(t, d.path)
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for last := uint32(0); ; {
				select {
				case <-stop:
					return
				default:
				}
				gen := load(mem)
				if gen < last {
					t.Errorf("the page went back from %d to %d", last, gen)
					return
				}
				last = gen
				evict(fd, mem)
			}
		}()
		for range 300 {
			if gen := d.bump(0); load(mem) != gen {
				t.Errorf("after the bump the page shows %d, want %d", load(mem), gen)
			}
		}
		close(stop)
		<-done
	})
}

// evict takes the page out of the page table and of the cache, if it can.
func evict(fd int, mem []byte) {
	_ = unix.Madvise(mem, unix.MADV_DONTNEED)
	_ = unix.Fadvise(fd, 0, PageSize, unix.FADV_DONTNEED)
}

func TestLimitPerUID(t *testing.T) {
	for _, mode := range []Mode{ModePassthrough, ModePageCache} {
		t.Run(mode.String(), func(t *testing.T) { limitPerUID(t, serveIn(t, mode, 3)) })
	}
}

func limitPerUID(t *testing.T, d *device) {
	clients := make([]*helper, 4)
	for i := range clients {
		clients[i] = start(t, 65534, "client")
	}
	for _, c := range clients[:3] {
		c.want("0", "open %s", d.path)
	}
	clients[3].want("EMFILE", "open %s", d.path)
	clients[3].want("EMFILE", "openro %s", d.path) // no way around it
	other := start(t, 65533, "client")
	other.want("0", "open %s", d.path) // is not starved
	for range 5 {
		open(t, d.path, unix.O_RDWR) // nor is root limited
	}
	clients[0].want("0", "close")
	d.want("ok", "open 8")
	clients[3].want("0", "open %s", d.path)
}

func TestThousandsOfDescriptors(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		const n = 4000
		raiseFileLimit(t, n+100)
		fds := make([]int, n)
		for i := range fds {
			fds[i] = open(t, d.path, unix.O_RDWR|unix.O_NONBLOCK)
			wantErr(t, "track", rawIoctl(fds[i], SetWatcherTracking, 1), 0)
		}
		gen := d.bump(0)
		if got := len(d.watchers("outdated")); got != n {
			t.Fatalf("%d outdated, want %d", got, n)
		}
		for i, fd := range fds {
			if i == n-1 {
				d.want("context deadline exceeded", "wait 1")
			}
			wantErr(t, "acknowledge", acknowledge(uintptr(fd), gen), 0)
		}
		d.want("<nil>", "wait 0")
		for _, fd := range fds {
			unix.Close(fd)
		}
		d.want("ok", "open 0")
	})
}

func raiseFileLimit(t testing.TB, n uint64) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if old.Cur >= n {
		return
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: max(n, old.Max)}); err != nil {
		t.Fatalf("raise the limit of descriptors: %v", err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &old) })
}

// TestAutoIsSafe: what ModeAuto chooses must not let anybody forge the page.
func TestAutoIsSafe(t *testing.T) {
	path := filepath.Join(place, t.Name())
	h := start(t, 0, "server", path, strconv.Itoa(int(ModeAuto)), "0")
	got := h.receive()
	if got != "serving passthrough" && got != "serving pagecache" {
		t.Fatalf("server: %s", got)
	}
	mapShared(t, path)
	c := start(t, 65534, "client")
	c.want("0", "open %s", path)
	if got := c.ask("mapwrite"); got == "0" {
		t.Error("an unprivileged user can map the page writable")
	}
}

// TestDocumentedDifferences holds what the documentation says of the two modes.
func TestDocumentedDifferences(t *testing.T) {
	inModes(t, func(t *testing.T, d *device, mode Mode) {
		d.bump(8)
		reading := open(t, d.path, unix.O_RDONLY|unix.O_NONBLOCK)
		gen, err := readGen(reading)
		writing := open(t, d.path, unix.O_RDWR)
		mem, mapErr := unix.Mmap(writing, 0, 4, unix.PROT_READ, unix.MAP_SHARED)
		switch mode {
		case ModePassthrough:
			wantErr(t, "read through a descriptor for reading", err, unix.EAGAIN)
			wantErr(t, "map a privileged descriptor for writing", mapErr, 0) // Firecracker's test client
			if load(mem) != 8 || d.bump(0) != load(mem) {
				t.Errorf("it shows %d", load(mem))
			}
			_ = unix.Munmap(mem)
		case ModePageCache:
			wantErr(t, "read through a descriptor for reading", err, 0)
			if gen != 8 {
				t.Errorf("it reads %d, want the current generation", gen)
			}
			wantErr(t, "map a descriptor for writing", mapErr, unix.ENODEV)
		}
	})
}
