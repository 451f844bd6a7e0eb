package genid

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// idAt is where the id of these tests lies: with the hypervisor's time just before it wrote in its first half. The
// word behind the id has the time just after.
const (
	idAt    = 0x3028
	afterAt = idAt + uint64(len(ID{}))
)

// writingRole makes a child of the test the hypervisor: at each line of its input it waits for up to 3 ms and then
// writes the time as a new id.
const writingRole = "GENID_TEST_WRITE"

func TestHypervisorRole(t *testing.T) {
	path := os.Getenv(writingRole)
	if path == "" {
		t.Skip("only in a child of TestReaction")
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page, err := unix.Mmap(int(f.Fd()), idAt&^0xfff, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(page) }()
	id := (*uint64)(unsafe.Pointer(&page[idAt&0xfff]))
	after := (*uint64)(unsafe.Pointer(&page[afterAt&0xfff]))
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond) // at any point between two looks
		atomic.StoreUint64(id, monotonic())
		atomic.StoreUint64(after, monotonic())
	}
}

func monotonic() uint64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return uint64(t.Nano())
}

// otherProcess is a page that another process writes.
func otherProcess(t testing.TB) (p *Page, write func()) {
	t.Helper()
	mem, device := memory(t, ID{1}, idAt)
	p, err := mapPage(mem, device)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	cmd := exec.Command(os.Args[0], "-test.run=^TestHypervisorRole$")
	cmd.Env = append(os.Environ(), writingRole+"="+mem.Name())
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return p, func() {
		if _, err := io.WriteString(in, "\n"); err != nil {
			t.Fatal(err)
		}
	}
}

// notice is one write and the looks at it: when the last look that missed it began, and when the one that saw it
// began and was done. The write happened at some moment from before to after, between which its process may have
// had to wait for a processor.
type notice struct{ missed, saw, done, before, after uint64 }

// noticing looks every millisecond, as the flow does while quiesced, until the id is another one.
func noticing(p *Page, tick <-chan time.Time, write func()) (n notice) {
	known := p.load()
	write()
	for {
		n.missed = n.saw
		<-tick
		n.saw = monotonic()
		if v := p.load(); v != known {
			n.done, n.before = monotonic(), v[0]
			break
		}
	}
	for after := (*uint64)(unsafe.Pointer(&p.page[afterAt&0xfff])); n.after < n.before; {
		n.after = atomic.LoadUint64(after)
	}
	return n
}

// The first look after the id was written sees it. So the reaction is what is between two looks and no more,
// however long that is on a machine that does other things too.
func TestReaction(t *testing.T) {
	p, write := otherProcess(t)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 50 {
		if n := noticing(p, tick.C, write); n.missed >= n.after || n.before > n.done {
			t.Errorf("written from %d to %d, missed by a look at %d, seen by one from %d to %d",
				n.before, n.after, n.missed, n.saw, n.done)
		}
	}
}

// BenchmarkReaction is the time from another process's write to the end of the look that has seen it.
func BenchmarkReaction(b *testing.B) {
	p, write := otherProcess(b)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var all []uint64
	for b.Loop() {
		n := noticing(p, tick.C, write)
		all = append(all, n.done-n.before)
	}
	slices.Sort(all)
	for _, q := range []int{50, 90, 99} {
		b.ReportMetric(float64(all[len(all)*q/100]), fmt.Sprintf("p%d-ns", q))
	}
	b.ReportMetric(float64(all[len(all)-1]), "max-ns")
	b.ReportMetric(0, "ns/op")
}
