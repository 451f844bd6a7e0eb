package genid

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Pool is the kernel's random pool, opened before a snapshot so that a reseed is two system calls.
type Pool struct{ fd int }

// OpenPool opens path (/dev/urandom).
func OpenPool(path string) (*Pool, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &Pool{fd}, nil
}

// Close closes the pool.
func (p *Pool) Close() error { return unix.Close(p.fd) }

// cpuBytes is how much is drawn from the CPU's generator at each reseed: two keys' worth.
const cpuBytes = 64

// Sources says what went into a reseed.
type Sources struct {
	// CPUBytes come from the processor's generator; 0 where it has none.
	CPUBytes int `json:"cpu-bytes"`
	// SeedBytes come from the host.
	SeedBytes int `json:"seed-bytes"`
	// CreditedBits is the entropy credited. The id itself is unique and no secret: it is mixed in and
	// credited nothing.
	CreditedBits int `json:"credited-bits"`
}

// Reseed mixes id, the CPU's generator and the host's seed into the pool and then makes the generator
// take a new key from it: without the second step the first would change no output for up to a minute.
// Both steps answer with an error when they did not happen: EPERM without CAP_SYS_ADMIN, ENODATA as
// long as the generator was never seeded, ENOTTY before Linux 4.17. When it returns nil, every byte
// that anyone draws from getrandom from now on depends on what was mixed in (drivers/char/random.c:
// RNDRESEEDCRNG reseeds before it returns and raises the generation that per-CPU keys, and since 6.11
// the vDSO's, are checked against).
func (p *Pool) Reseed(id string, seed []byte) (Sources, error) {
	var cpu [cpuBytes]byte
	n := cpuRandom(cpu[:])
	s := Sources{CPUBytes: n, SeedBytes: len(seed), CreditedBits: 8 * n}
	mix := append(append([]byte(id), cpu[:n]...), seed...)
	if err := p.add(mix, s.CreditedBits); err != nil {
		return Sources{}, fmt.Errorf("mix %d bytes into the random pool: %w", len(mix), err)
	}
	if err := p.ioctl(unix.RNDRESEEDCRNG, nil); err != nil {
		return Sources{}, fmt.Errorf("reseed the kernel's generator: %w", err)
	}
	return s, nil
}

// add is RNDADDENTROPY. The kernel's layout (include/uapi/linux/random.h):
//
//	struct rand_pool_info { int entropy_count; int buf_size; __u32 buf[]; };
func (p *Pool) add(data []byte, bits int) error {
	info := make([]byte, 8, 8+len(data))
	binary.NativeEndian.PutUint32(info, uint32(bits))
	binary.NativeEndian.PutUint32(info[4:], uint32(len(data)))
	info = append(info, data...)
	return p.ioctl(unix.RNDADDENTROPY, unsafe.Pointer(&info[0]))
}

func (p *Pool) ioctl(request uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(p.fd), request, uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}

// cpuRandom fills p from the processor's generator and returns how many bytes it gave, 0 where there is
// none. A generator that keeps failing, or repeats itself, counts as none (some AMD processors answer
// all ones after a suspend).
func cpuRandom(p []byte) int {
	if !hasCPURandom() {
		return 0
	}
	var last uint64
	for i := 0; i+8 <= len(p); i += 8 {
		v, ok := cpuWord()
		if !ok || i > 0 && v == last {
			return i
		}
		last = v
		binary.NativeEndian.PutUint64(p[i:], v)
	}
	return len(p) / 8 * 8
}

// cpuWord tries as often as Intel advises ("Digital Random Number Generator Software Implementation
// Guide", 5.2.1).
func cpuWord() (uint64, bool) {
	for range 10 {
		if v, ok := readCPURandom(); ok {
			return v, true
		}
	}
	return 0, false
}
