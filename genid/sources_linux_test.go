package genid

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hypervisor is the other side of a vmclock page: it writes the file as a hypervisor writes guest memory.
type hypervisor struct {
	path string
	page []byte
}

func newHypervisor(t testing.TB, flags uint64) *hypervisor {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vmclock0")
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	return hypervisorAt(t, path, 0, flags)
}

// hypervisorAt writes the page at an address, which is a multiple of 4096.
func hypervisorAt(t testing.TB, path string, addr int64, flags uint64) *hypervisor {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page, err := unix.Mmap(int(f.Fd()), addr, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(page) })
	binary.LittleEndian.PutUint32(page, 0x4b4c4356)
	binary.LittleEndian.PutUint32(page[4:], 4096)
	binary.LittleEndian.PutUint16(page[8:], 1)
	binary.LittleEndian.PutUint64(page[24:], flags)
	return &hypervisor{path, page}
}

func (h *hypervisor) word(at int) *uint64 { return (*uint64)(unsafe.Pointer(&h.page[at])) }
func (h *hypervisor) seq() *uint32        { return (*uint32)(unsafe.Pointer(&h.page[12])) }

// clone is one update: odd, write, even.
func (h *hypervisor) clone(generation uint64) {
	atomic.AddUint32(h.seq(), 1)
	atomic.AddUint64(h.word(16), 1)
	atomic.StoreUint64(h.word(104), generation)
	atomic.AddUint32(h.seq(), 1)
}

// open opens sources and closes them with the test. Nothing may be logged.
func open(t testing.TB, o Options) *Sources {
	t.Helper()
	o.Log = func(format string, args ...any) { t.Errorf("log: "+format, args...) }
	s := OpenSources(o)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func expect(t testing.TB, s *Sources, id string) {
	t.Helper()
	if got := s.ID(); got != id {
		t.Errorf("identity %q, want %q", got, id)
	}
}

func TestNothingThere(t *testing.T) {
	for name, o := range map[string]Options{
		"nothing asked for": {},
		"nothing found": {Tables: os.DirFS("/nonexistent"), Tree: os.DirFS("/nonexistent"), Memory: "/nonexistent", Iomem: "/nonexistent",
			VMClock: "/nonexistent", Native: "/nonexistent", KernelLog: "/nonexistent", Uevents: true, Buses: os.DirFS("/nonexistent")},
		"a device that rouse serves": {Native: newHypervisor(t, 0).path},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, o)
			if len(s.Names()) != 0 || s.Primary() != "" || s.Page() != nil {
				t.Errorf("sources %v, primary %q", s.Names(), s.Primary())
			}
			expect(t, s, "")
			if n, err := s.Bump(func() (uint32, error) { return 7, nil }); n != 7 || err != nil {
				t.Errorf("bump: %d, %v", n, err)
			}
		})
	}
}

func TestVMClock(t *testing.T) {
	h := newHypervisor(t, clockHasCounter)
	h.clone(41)
	s := open(t, Options{VMClock: h.path})
	if !slices.Equal(s.Names(), []string{SourceVMClock}) || s.Primary() != SourceVMClock {
		t.Errorf("sources %v, primary %s", s.Names(), s.Primary())
	}
	expect(t, s, "vmclock:41")
	atomic.AddUint32(h.seq(), 1)
	atomic.StoreUint64(h.word(104), 42)
	expect(t, s, "vmclock:41") // half written
	atomic.AddUint32(h.seq(), 1)
	expect(t, s, "vmclock:42")
	h.clone(43) // within the same second
	expect(t, s, "vmclock:43")
}

// A device that notifies is awaited too; the notification is only a hint.
func TestVMClockNotifies(t *testing.T) {
	h := newHypervisor(t, clockHasCounter|clockHasNotifier)
	s := open(t, Options{VMClock: h.path}) // a plain file, which cannot be awaited: no harm
	if !s.Prompt() {
		t.Error("a device that notifies is not prompt")
	}
	expect(t, s, "vmclock:0")
	h.clone(1)
	if s.drainClock(-1) {
		t.Error("a notification ended the wait for the next one")
	}
	<-s.Events()
	expect(t, s, "vmclock:1")
	if open(t, Options{VMClock: newHypervisor(t, clockHasCounter).path}).Prompt() {
		t.Error("a device that does not notify is prompt")
	}
}

func TestVMClockUnusable(t *testing.T) {
	tests := map[string]struct {
		change func(*hypervisor)
		want   string
	}{
		"no counter":       {func(h *hypervisor) { *h.word(24) = 0 }, "keeps no generation counter"},
		"wrong magic":      {func(h *hypervisor) { h.page[0] = 0 }, "magic"},
		"too small":        {func(h *hypervisor) { binary.LittleEndian.PutUint32(h.page[4:], 104) }, "has no generation counter"},
		"another version":  {func(h *hypervisor) { h.page[8] = 2 }, "version 2"},
		"never written":    {func(h *hypervisor) { *h.seq() = 1 }, "does not finish"},
		"a truncated file": {func(h *hypervisor) { _ = os.Truncate(h.path, 100) }, "too small"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHypervisor(t, clockHasCounter)
			tt.change(h)
			var told []string
			s := OpenSources(Options{VMClock: h.path, Log: func(format string, args ...any) { told = append(told, fmt.Sprintf(format, args...)) }})
			defer s.Close()
			if len(s.Names()) != 0 || len(told) != 1 || !strings.Contains(told[0], tt.want) {
				t.Errorf("sources %v, log %q, want %q", s.Names(), told, tt.want)
			}
		})
	}
}

// machine is sources with a kernel log in the hands of a test.
type machine struct {
	*Sources
	log int // takes records
}

// packets is a pair of descriptors that keep messages apart, as /dev/kmsg does.
func packets(t testing.TB) (read *os.File, write int) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[1]) })
	return os.NewFile(uintptr(p[0]), "packets"), p[1]
}

func newMachine(t testing.TB, o Options, counting bool) *machine {
	t.Helper()
	m := &machine{Sources: open(t, o)}
	f, w := packets(t)
	m.log = w
	m.followKernelLog(f, unix.Read, counting)
	m.all.start()
	return m
}

const (
	cloneRecord = "5,412,1234567,-;" + clonedText + "\n"
	otherRecord = "6,411,1234560,-;virtio_net virtio0: something else\n"
)

func (m *machine) logs(t testing.TB, record string) {
	t.Helper()
	if _, err := unix.Write(m.log, []byte(record)); err != nil {
		t.Fatal(err)
	}
}

func TestKernelLogCountsWhereNothingElseDoes(t *testing.T) {
	m := newMachine(t, Options{}, true)
	expect(t, m.Sources, "")
	for n := range 3 {
		m.logs(t, otherRecord)
		m.logs(t, cloneRecord)
		<-m.Events()
		expect(t, m.Sources, fmt.Sprintf("kmsg:%d", n+1))
	}
}

func TestKernelLogIsAHintWhereAnotherSourceDecides(t *testing.T) {
	h := newHypervisor(t, clockHasCounter)
	m := newMachine(t, Options{VMClock: h.path}, false)
	h.clone(1)
	expect(t, m.Sources, "vmclock:1")
	m.logs(t, cloneRecord) // of the same clone, later
	<-m.Events()
	expect(t, m.Sources, "vmclock:1")
	h.clone(2)
	m.logs(t, cloneRecord)
	<-m.Events()
	expect(t, m.Sources, "vmclock:2")
}

// Lost records mean "look", and where they might have counted the loss is told.
func TestKernelLogOverrun(t *testing.T) {
	for _, counting := range []bool{true, false} {
		t.Run(fmt.Sprintf("counting=%v", counting), func(t *testing.T) {
			told := make(chan string, 1)
			s := OpenSources(Options{Log: func(format string, args ...any) { told <- fmt.Sprintf(format, args...) }})
			defer s.Close()
			f, w := packets(t)
			first := true
			s.followKernelLog(f, func(fd int, p []byte) (int, error) {
				if first {
					first = false
					return 0, unix.EPIPE
				}
				return unix.Read(fd, p)
			}, counting)
			s.all.start()
			<-s.Events()
			if counting != (len(told) == 1) {
				t.Errorf("%d lines logged", len(told))
			}
			if _, err := unix.Write(w, []byte(cloneRecord)); err != nil { // it goes on behind
				t.Fatal(err)
			}
			<-s.Events()
		})
	}
}

func TestUeventsNeedTheKernelsPort(t *testing.T) {
	event := []byte("change@/x\x00NEW_VMGENID=1\x00")
	s := open(t, Options{})
	f, w := packets(t)
	s.followUevents(f, true)
	s.all.start()
	if _, err := unix.Write(w, event); err != nil { // this socket is not the kernel's
		t.Fatal(err)
	}
	expect(t, s, "")
	for want, from := range map[bool]unix.Sockaddr{true: &unix.SockaddrNetlink{}, false: &unix.SockaddrNetlink{Pid: 1}} {
		if fromKernel(from) != want {
			t.Errorf("%+v", from)
		}
	}
}

func TestDriverBound(t *testing.T) {
	link := &fstest.MapFile{Mode: fs.ModeSymlink}
	for name, tt := range map[string]struct {
		buses fstest.MapFS
		want  bool
	}{
		"Linux 6.12":      {fstest.MapFS{"platform/drivers/vmgenid/QEMUVGID:00": link}, true},
		"Linux 6.8":       {fstest.MapFS{"acpi/drivers/vmgenid/VMGENCTR:00": link}, true},
		"without device":  {fstest.MapFS{"platform/drivers/vmgenid/bind": {}, "platform/drivers/vmgenid/module": link}, false},
		"another driver":  {fstest.MapFS{"platform/drivers/vmclock/AMZNC10C:00": link}, false},
		"nothing mounted": {fstest.MapFS{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := driverBound(tt.buses); got != tt.want {
				t.Errorf("%v", got)
			}
		})
	}
}

// The page comes from the device tree where there is no ACPI; with a vmclock page beside it, one clone
// is one generation although two sources show it.
func TestPageByDeviceTreeAgreesWithVMClock(t *testing.T) {
	first, second := ID{1, 2, 3}, ID{3, 2, 1}
	mem, _ := memory(t, first, 0x8000)
	reg := binary.BigEndian.AppendUint64(nil, 0x8000)
	reg = binary.BigEndian.AppendUint64(reg, 16)
	cells := &fstest.MapFile{Data: []byte{0, 0, 0, 2}}
	tree := fstest.MapFS{"#address-cells": cells, "#size-cells": cells,
		"vmgenid@8000/compatible": {Data: []byte("microsoft,vmgenid\x00")}, "vmgenid@8000/reg": {Data: reg}}
	h := newHypervisor(t, clockHasCounter)
	s := open(t, Options{Tables: os.DirFS("/nonexistent"), Tree: tree, Memory: mem.Name(), VMClock: h.path})
	if !slices.Equal(s.Names(), []string{SourceVMGenID, SourceVMClock}) || s.Primary() != SourceVMGenID {
		t.Fatalf("sources %v", s.Names())
	}
	now := time.Unix(1000, 0)
	s.now = func() time.Time { return now }
	expect(t, s, first.String())
	h.clone(1)
	expect(t, s, first.String()) // the page may be just behind
	if _, err := mem.WriteAt(second[:], 0x8000); err != nil {
		t.Fatal(err)
	}
	expect(t, s, second.String())
	now = now.Add(time.Hour)
	expect(t, s, second.String())
	h.clone(2) // and the page is not written
	expect(t, s, second.String())
	now = now.Add(patience)
	expect(t, s, second.String()+"/vmclock:2")
	if n := testing.AllocsPerRun(100, func() { _ = s.ID() }); n != 0 {
		t.Errorf("%v allocations per look", n)
	}
}

// AML fields are read from memory and nowhere else.
func TestReadMemory(t *testing.T) {
	mem, _ := memory(t, ID{7}, 0x3000)
	m := filepath.Join(t.TempDir(), "iomem")
	if err := os.WriteFile(m, []byte("00003000-00003fff : Reserved\n00004000-00004fff : HPET 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var p [4]byte
	if err := readMemory(mem.Name(), m, 0x3000, p[:]); err != nil || p[0] != 7 {
		t.Errorf("%v, %v", p, err)
	}
	if err := readMemory(mem.Name(), m, 0x4000, p[:]); err == nil {
		t.Error("device registers were read")
	}
	if err := readMemory(mem.Name(), filepath.Join(t.TempDir(), "none"), 0x3000, p[:]); err == nil {
		t.Error("read without a map")
	}
}

// Idle sources do not wake: reads are counted while nothing happens, and after every kind of event.
func TestIdleSourcesSleep(t *testing.T) {
	s := open(t, Options{})
	f, w := packets(t)
	var reads atomic.Int64
	asleep := make(chan struct{}, 16)
	s.followKernelLog(f, func(fd int, p []byte) (int, error) {
		n, err := unix.Read(fd, p)
		reads.Add(1)
		if err == unix.EAGAIN {
			asleep <- struct{}{}
		}
		return n, err
	}, true)
	s.all.start()
	<-asleep
	for n := range 5 {
		if _, err := unix.Write(w, []byte(otherRecord)); err != nil {
			t.Fatal(err)
		}
		<-asleep
		if got, want := reads.Load(), int64(1+2*(n+1)); got != want { // the record and the end of what there is
			t.Errorf("%d reads after %d records, want %d", got, n+1, want)
		}
	}
	for range 100000 {
		_ = s.ID()
	}
	if reads.Load() != 11 || len(s.Events()) != 0 {
		t.Errorf("%d reads, %d hints although nothing has happened since", reads.Load(), len(s.Events()))
	}
}

func BenchmarkID(b *testing.B) {
	h := newHypervisor(b, clockHasCounter)
	s := open(b, Options{VMClock: h.path})
	b.ReportAllocs()
	for b.Loop() {
		_ = s.ID()
	}
}
