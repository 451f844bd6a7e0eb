package sockdiag

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// played is a connection whose answers are written by the test: the seam for what a kernel does only when it is busy.
func played(t *testing.T, answer func(seq uint32) []byte) *conn {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil { // takes the requests, and is never read
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	c := &conn{fd: fds[1]}
	c.read = func(_ int, p []byte) (int, error) { return copy(p, answer(c.seq)), nil }
	return c
}

func reply(kind, flags uint16, seq uint32, payload ...byte) []byte {
	b := append(newRequest(nil, kind, flags), payload...)
	setSeq(b, seq)
	return seal(b)
}

func done(flags uint16, seq uint32, errno unix.Errno) []byte {
	return reply(nlmsgDone, flags, seq, words(uint32(-int32(errno)))...)
}

func collect(c *conn) (got []byte, err error) {
	err = c.dump(context.Background(), make([]byte, 4096), newRequest(nil, 1, 0),
		func(b []byte) { got = append(got, b...) }, func() { got = nil })
	return got, err
}

func TestTornDumpIsTakenAgain(t *testing.T) {
	tries := 0
	c := played(t, func(seq uint32) []byte {
		tries++
		if tries < 4 { // flagged on a row, on the end, on a row
			flags := uint16(flagDumpIntr)
			return append(reply(20, flags*uint16(tries%2), seq, 1, 1, 1, 1), done(flags, seq, 0)...)
		}
		return append(reply(20, 0, seq, 7, 7, 7, 7), done(0, seq, 0)...)
	})
	got, err := collect(c)
	if err != nil || string(got) != "\x07\x07\x07\x07" || tries != 4 {
		t.Errorf("%v after %d tries: %v", got, tries, err)
	}
}

func TestDumpThatIsAlwaysTorn(t *testing.T) {
	tries := 0
	c := played(t, func(seq uint32) []byte { tries++; return done(flagDumpIntr, seq, 0) })
	if _, err := collect(c); !errors.Is(err, ErrTorn) || tries != maxTorn {
		t.Errorf("%d tries: %v", tries, err)
	}
}

func TestDumpErrors(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(seq uint32) []byte
		want   error
	}{
		"refused":        {func(seq uint32) []byte { return reply(nlmsgError, 0, seq, words(uint32(0xffffffff-1))...) }, unix.ENOENT},
		"failed midway":  {func(seq uint32) []byte { return append(reply(20, 0, seq, 1, 2, 3, 4), done(0, seq, unix.EINVAL)...) }, unix.EINVAL},
		"not a message":  {func(uint32) []byte { return []byte{1, 2, 3} }, errMessage},
		"cut short":      {func(seq uint32) []byte { return reply(20, 0, seq, 1, 2, 3, 4)[:18] }, errMessage},
		"acknowledgment": {func(seq uint32) []byte { return reply(nlmsgError, 0, seq, words(0)...) }, nil},
		"older answers before": {func(seq uint32) []byte {
			return append(done(0, seq-1, unix.EIO), done(0, seq, 0)...)
		}, nil},
	} {
		if _, err := collect(played(t, c.answer)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	c := played(t, nil)
	c.read = func(int, []byte) (int, error) { return 0, unix.ENOBUFS }
	if _, err := collect(c); !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("receive: %v", err)
	}
	signalled := 0
	c.read = func(_ int, p []byte) (int, error) {
		if signalled++; signalled < 3 {
			return 0, unix.EINTR
		}
		return copy(p, done(0, c.seq, 0)), nil
	}
	if _, err := collect(c); err != nil || signalled != 3 {
		t.Errorf("interrupted: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	batch := []*Socket{{Cookie: 1}, {Cookie: 2}, {Cookie: 3}}
	fail := func(seq uint32, errno unix.Errno) []byte {
		return reply(nlmsgError, 0, seq, words(uint32(-int32(errno)))...)
	}
	refused := map[uint64]string{}
	answer := append(append(fail(3, unix.EPERM), fail(10, unix.EPERM)...), fail(11, unix.ENOENT)...) // 3: of an older batch
	if done, err := readRefusals(answer, 10, batch, refused); done || err != nil {
		t.Fatalf("done %v: %v", done, err)
	}
	if done, err := readRefusals(fail(12, 0), 10, batch, refused); !done || err != nil {
		t.Fatalf("done %v: %v", done, err)
	}
	if len(refused) != 1 || refused[1] != unix.EPERM.Error() {
		t.Errorf("%v", refused)
	}
}

func TestParseLink(t *testing.T) {
	for target, want := range map[string]uint64{"socket:[4711]": 4711, "socket:[]": 0, "socket:[12": 0, "socket:[1x]": 0, "pipe:[12]": 0, "": 0} {
		if got, ok := parseLink([]byte(target), "socket:["); (ok && got != 0) != (want != 0) || ok && got != want {
			t.Errorf("%q: %d %v", target, got, ok)
		}
	}
}

func FuzzProcess(f *testing.F) {
	f.Add([]byte("socket:[4711]"))
	f.Add(append(words(20, 2, 0, 0, 0), 2, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		parseLink(b, "socket:[")
		parseAddress(b)
		if request, ok := forgetNeighbour(b); ok {
			if _, _, rest, err := nextMessage(request); err != nil || len(rest) != 0 {
				t.Errorf("request %x: %v", request, err)
			}
		}
		eachMountedNamespace(b, func(uint64, string) {})
		parseInFlight(b)
		_, _ = readRefusals(b, 0, []*Socket{{}, {}}, map[uint64]string{})
	})
}

func TestMountedNamespaces(t *testing.T) {
	const mounts = `22 1 0:21 / /proc rw,relatime shared:5 - proc proc rw
123 45 0:4 net:[4026532000] /run/netns/blue\040sky rw shared:7 - nsfs nsfs rw
124 45 0:4 mnt:[4026532001] /run/mnt rw shared:7 - nsfs nsfs rw
125 45 0:5 net:[4026532002] /a\134b rw - tmpfs tmpfs rw
126 45 0:4 net:[4026532003] /a\134b rw - nsfs nsfs rw
`
	got := map[uint64]string{}
	eachMountedNamespace([]byte(mounts), func(inode uint64, path string) { got[inode] = path })
	if len(got) != 2 || got[4026532000] != "/run/netns/blue sky" || got[4026532003] != `/a\b` {
		t.Errorf("%v", got)
	}
	if n := parseInFlight([]byte("pos:\t0\nflags:\t02\nscm_fds: 3\nino: 4\n")); n != 3 {
		t.Errorf("in flight: %d", n)
	}
}

// TestOwnersAreRemembered: a socket that stays busy is looked for once, and so is one that no process has open.
func TestOwnersAreRemembered(t *testing.T) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	inode, err := inodeOf(fd)
	if err != nil {
		t.Fatal(err)
	}
	var o owners
	found := func(inodes ...uint64) []Socket {
		out := make([]Socket, len(inodes))
		for i, n := range inodes {
			out[i].Inode = n
		}
		if err := o.fill(out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	nobody := uint64(1) << 40
	if got := found(inode, nobody, 0); got[0].PID != os.Getpid() || got[0].Comm == "" || got[1].PID != 0 {
		t.Errorf("first look: %+v", got)
	}
	unix.Close(fd) // only memory can tell now
	o.took = time.Hour
	if got := found(inode, nobody); got[0].PID != os.Getpid() || got[0].Comm == "" {
		t.Errorf("second look: %+v", got)
	}
	found()
	if len(o.known) != 0 {
		t.Errorf("remembers what is not busy any more: %v", o.known)
	}
	if got := found(inode); got[0].PID != 0 || len(o.known) != 0 {
		t.Errorf("a pass was made before its time: %+v", got)
	}
}

func TestUnlessGone(t *testing.T) {
	for err, want := range map[error]bool{unix.ESRCH: false, unix.EBADF: false, unix.EPERM: true, unix.EMFILE: true} {
		if got := unlessGone(handle{}, err); (got != nil) != want || got != nil && !errors.Is(got, err) {
			t.Errorf("%v: %v", err, got)
		}
	}
}
