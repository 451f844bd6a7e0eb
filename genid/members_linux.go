package genid

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"rouse/acpi"
	"rouse/internal/fmt"
)

// The sources that define the identity: each is memory that somebody else writes.

func (s *Sources) addPage(o Options) error {
	p, err := FindPage(o)
	if errors.Is(err, acpi.ErrNotFound) {
		return fmt.Errorf("%w: %w", errAbsent, err)
	}
	if err != nil {
		return err
	}
	s.page = p
	s.close = append(s.close, p.Close)
	s.all.members = append(s.all.members, member{name: SourceVMGenID, read: p.load, format: formatID})
	return nil
}

func formatID(v reading) string { return (*(*ID)(unsafe.Pointer(&v))).String() }

// counterFormat writes a counter.
func counterFormat(name string) func(reading) string {
	return func(v reading) string { return name + ":" + strconv.FormatUint(v[0], 10) }
}

// addClock uses a vmclock page: that of the kernel's driver or, where there is none, the region that the
// device tree tells of.
func (s *Sources) addClock(o Options) error {
	if o.VMClock == "" {
		return s.addClockRegion(o)
	}
	// Non-blocking, so that waiting for it is epoll's. Reading never blocks.
	f, err := os.OpenFile(o.VMClock, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return s.addClockRegion(o)
	}
	if err != nil {
		return err
	}
	page, err := s.useClock(f, 0)
	if err == nil && page.notifies() {
		s.prompt = true
		s.follow(f, s.drainClock)
		return nil
	}
	return errors.Join(err, f.Close())
}

// addClockRegion maps the region itself. What the hypervisor notifies goes to the kernel alone, so this one is
// only looked at.
func (s *Sources) addClockRegion(o Options) error {
	if o.Tree == nil {
		return errAbsent
	}
	d, err := acpi.FindVMClockTree(o.Tree)
	if noDevice(err) {
		return errAbsent
	}
	if err != nil {
		return err
	}
	f, err := os.Open(o.Memory)
	if err != nil {
		return fmt.Errorf("page at %#x: %w", d.Address, err)
	}
	defer f.Close()
	_, err = s.useClock(f, d.Address)
	return err
}

// useClock makes the page at addr in f a source.
func (s *Sources) useClock(f *os.File, addr uint64) (clockPage, error) {
	mapped, page, first, err := mapClock(f, addr)
	if err != nil {
		return nil, fmt.Errorf("%s at %#x: %w", f.Name(), addr, err)
	}
	s.close = append(s.close, func() error { return unix.Munmap(mapped) })
	last := reading{first}
	s.all.members = append(s.all.members, member{name: SourceVMClock, format: counterFormat(SourceVMClock), read: func() reading {
		if v, ok := page.counter(); ok {
			last = reading{v}
		}
		return last // torn: nothing is known that was not before
	}})
	return page, nil
}

// drainClock reads the page, which is how a notification is taken (vmclock_miscdev_poll compares
// seq_count with what the last read has returned), and passes it on.
func (s *Sources) drainClock(fd int) (ended bool) {
	var head [clockAtSeq + 4]byte
	// What it returns does not matter: the mapped page is looked at in any case.
	_, _ = unix.Pread(fd, head[:], 0)
	s.poke()
	return false
}

// mapClock maps the page that holds addr, checks that what lies there is sound, and reads its counter.
func mapClock(f *os.File, addr uint64) (mapped []byte, page clockPage, counter uint64, err error) {
	size := uint64(os.Getpagesize())
	offset := addr % size
	if offset%8 != 0 || offset > size-clockSize {
		return nil, nil, 0, errors.New("not 8-byte aligned within a page")
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, 0, err
	}
	if info.Mode().IsRegular() && uint64(info.Size()) < addr+clockSize { // a load behind the end of a file is a SIGBUS
		return nil, nil, 0, fmt.Errorf("%d bytes: too small", info.Size())
	}
	if mapped, err = mapFile(f, int64(addr-offset)); err != nil {
		return nil, nil, 0, wrap("map", err)
	}
	page = mapped[offset:]
	if err = page.check(); err == nil {
		var ok bool
		if counter, ok = page.counter(); ok {
			return mapped, page, counter, nil
		}
		err = errClockTorn
	}
	_ = unix.Munmap(mapped)
	return nil, nil, 0, err
}

// mapFile maps one page of f at offset to read.
func mapFile(f *os.File, offset int64) (page []byte, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	// Not f.Fd(), which would make a descriptor blocking.
	cause := raw.Control(func(fd uintptr) {
		page, err = unix.Mmap(int(fd), offset, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
	})
	return page, errors.Join(err, cause)
}

// nativeCounter is the counter of a kernel driver's /dev/sysgenid, less the bumps that are ours.
type nativeCounter struct {
	word *uint32
	own  atomic.Uint32
}

func (n *nativeCounter) load() uint32 { return atomic.LoadUint32(n.word) }

// moves is the generation as others have moved it. Both loads are made under the lock of Sources.
func (n *nativeCounter) moves() reading { return reading{uint64(n.load() - n.own.Load())} }

// addNative uses a kernel driver's device, never one that is served from here.
func (s *Sources) addNative(path string) error {
	if path == "" {
		return errAbsent
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return errAbsent
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeCharDevice == 0 {
		return errAbsent
	}
	return s.openNative(path)
}

func (s *Sources) openNative(path string) error {
	// Two descriptors: not every server of the interface lets one map that can acknowledge.
	mapped, err := os.Open(path)
	if err != nil {
		return err
	}
	defer mapped.Close()
	page, err := mapFile(mapped, 0)
	if err != nil {
		return wrap("map "+path, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		_ = unix.Munmap(page)
		return err
	}
	s.close = append(s.close, func() error { return unix.Munmap(page) })
	s.native = &nativeCounter{word: (*uint32)(unsafe.Pointer(&page[0]))}
	s.all.members = append(s.all.members, member{name: SourceSysGenID, read: s.native.moves, format: counterFormat(SourceSysGenID)})
	s.follow(f, s.drainNative)
	return nil
}

// drainNative acknowledges for our own description, which is not tracked: nobody waits for it, but it
// would stay readable.
func (s *Sources) drainNative(fd int) (ended bool) {
	var gen [4]byte
	for {
		n, err := unix.Read(fd, gen[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n != len(gen) {
			return err != unix.EAGAIN
		}
		s.poke()
		// Refused if it has moved again: then it is readable again.
		_, _ = unix.Write(fd, gen[:])
	}
}
