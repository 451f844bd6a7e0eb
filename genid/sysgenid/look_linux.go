package sysgenid

import (
	"encoding/binary"
	"errors"
	"syscall"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// silent answers nobody: there is no connection.
type silent struct{}

func (silent) answer(uint64, syscall.Errno, []byte) {}
func (silent) wake(uint64)                          {}

func appendU64(b []byte, v uint64) []byte { return binary.NativeEndian.AppendUint64(b, v) }

// errForgeable: Linux checks a memfd's seals in its own mmap up to some release
// (mm/shmem.c, shmem_mmap) and after that in mm/mmap.c, for the file that was
// mmapped, which here is FUSE's. Debian's 6.12 and 6.18 were seen not to apply
// it. Always the last finding of look: everything else works.
var errForgeable error = fault("a mapping can be writable: this kernel does not apply the memfd's seal to FUSE")

// look opens and maps the device as a client would, with a descriptor for
// reading and one for writing at once, and compares what the page shows with
// current, which may move meanwhile. If the page is to be sealed, a writable
// mapping must fail. The stat also tells the kernel the file's
// size: until then a mapped load would die of SIGBUS.
//
// It runs in the process that serves, so everything here that waits for the
// server is a system call, which leaves Go's scheduler free; the page too is
// touched by the kernel, in a write, and never by a load of ours.
func look(path string, sealed bool, current func() uint32) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return wrap("stat the mounted device", err)
	}
	reading, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return wrap("open the mounted device for reading", err)
	}
	defer unix.Close(reading)
	both, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return wrap("open the mounted device for writing beside a reader", err)
	}
	defer unix.Close(both)
	mem, err := unix.Mmap(reading, 0, PageSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return wrap("map the mounted device", err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	before := current()
	shown, err := throughPipe(mem[:4])
	if err != nil {
		return wrap("read the mapped page", err)
	}
	if shown != before && shown != current() {
		return fmt.Errorf("the mapped page shows generation %d and not %d", shown, before)
	}
	if !sealed {
		return nil
	}
	if forged, err := unix.Mmap(both, 0, PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
		_ = unix.Munmap(forged)
		return errForgeable
	}
	return nil
}

// throughPipe copies four bytes by way of the kernel.
func throughPipe(mem []byte) (uint32, error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return 0, err
	}
	defer unix.Close(ends[0])
	defer unix.Close(ends[1])
	if _, err := unix.Write(ends[1], mem); err != nil {
		return 0, err
	}
	var b [4]byte
	n, err := unix.Read(ends[0], b[:])
	if n != 4 {
		return 0, errors.Join(errors.New("short read"), err)
	}
	return binary.NativeEndian.Uint32(b[:]), nil
}
