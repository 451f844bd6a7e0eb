package genid

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// Pool is the kernel's random pool, opened before a snapshot so that a reseed is two system calls.
type Pool struct{ fd int }

// OpenPool opens path (/dev/urandom).
func OpenPool(path string) (*Pool, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, wrap("open "+path, err)
	}
	return &Pool{fd}, nil
}

// Close closes the pool.
func (p *Pool) Close() error { return unix.Close(p.fd) }

// cpuBytes is how much is drawn from the CPU's generator at each reseed: two keys' worth.
const cpuBytes = 64

// Mixture says what went into a reseed.
type Mixture struct {
	// CPUBytes come from the processor's generator; 0 where it has none.
	CPUBytes int `json:"cpu-bytes"`
	// SeedBytes come from the host.
	SeedBytes int `json:"seed-bytes"`
	// CreditedBits is the entropy credited: that of the processor's bytes or, where there are none, of the
	// host's, who can read this machine's memory anyway. The id is unique and no secret: it is mixed in and credited nothing.
	CreditedBits int `json:"credited-bits"`
	// PoolBits is what the kernel said that its pool held just before the new key was taken from it.
	PoolBits int `json:"pool-bits"`
	// Guessable says that nothing secret went in: neither the processor nor the host gave anything. The
	// twins then differ, but who holds the snapshot's memory and knows the id can compute what they draw.
	Guessable bool `json:"guessable,omitempty"`
	// Warning is for the report: what Guessable means for an operator, "" if there is nothing to warn of.
	Warning string `json:"warning,omitempty"`
}

// guessable is the warning.
const guessable = "nothing secret went into the reseed: neither the processor nor the host gave anything, so that who " +
	"holds the snapshot's memory and knows the id can compute what this machine draws"

// mixtureOf says what n bytes of the processor and a seed of the host are worth.
func mixtureOf(n, seed int) Mixture {
	m := Mixture{CPUBytes: n, SeedBytes: seed, CreditedBits: 8 * n}
	if n == 0 {
		m.CreditedBits = 8 * min(seed, cpuBytes)
		if m.Guessable = seed == 0; m.Guessable {
			m.Warning = guessable
		}
	}
	return m
}

// minPoolBits is the least that a kernel before 5.18 takes a new key from: with less in its pool
// RNDRESEEDCRNG does nothing and still answers 0 (drivers/char/random.c of 5.10: crng_reseed extracts at least
// 16 bytes or none). Since 5.18 a pool that was ever full stays at 256.
const minPoolBits = 128

// ErrNoReseed is a kernel that would not have taken a new key.
var ErrNoReseed error = fault("the kernel's pool holds too little for a new key")

// Reseed mixes id, the CPU's generator, the host's seed and the time into the pool and then makes the
// generator take a new key from it: without the second step the first would change no output for up to
// a minute.
//
// That it happened is known from the kernel's own answers, each of which can be no. Mixing and reseeding
// fail with EPERM without CAP_SYS_ADMIN, ENODATA as long as the generator was never seeded, and ENOTTY
// before Linux 4.17 or where this is no random device. Between them the pool is asked what it holds, for old
// kernels skip the second step in silence if that is too little; ErrNoReseed says so. Nothing that is
// drawn could prove more: without the reseed it would look as random. When Reseed returns nil, every
// byte that anyone draws from getrandom from now on depends on what was mixed in (drivers/char/random.c:
// RNDRESEEDCRNG reseeds before it returns and raises the generation that per-CPU keys, and since 6.11
// the vDSO's, are checked against).
func (p *Pool) Reseed(id string, seed []byte) (Mixture, error) {
	var cpu [cpuBytes]byte
	n := cpuRandom(cpu[:])
	m := mixtureOf(n, len(seed))
	mix := append(append(clocks([]byte(id)), cpu[:n]...), seed...)
	if err := p.add(mix, m.CreditedBits); err != nil {
		return Mixture{}, fmt.Errorf("mix %d bytes into the random pool: %w", len(mix), err)
	}
	bits, err := p.bits()
	if err != nil {
		return Mixture{}, wrap("ask the random pool what it holds", err)
	}
	if m.PoolBits = bits; bits < minPoolBits {
		return Mixture{}, fmt.Errorf("%w: %d bits, and the processor gave none", ErrNoReseed, bits)
	}
	if err := p.ioctl(unix.RNDRESEEDCRNG, nil); err != nil {
		return Mixture{}, wrap("reseed the kernel's generator", err)
	}
	return m, nil
}

// clocks appends what the clocks say: no secret, but seldom the same in two clones. It sets those apart
// that have neither a generator nor an id of their own, such as "vmclock:2".
func clocks(p []byte) []byte {
	for _, clock := range []int32{unix.CLOCK_REALTIME, unix.CLOCK_MONOTONIC_RAW} {
		var t unix.Timespec
		_ = unix.ClockGettime(clock, &t) // zeros mix as well
		p = binary.NativeEndian.AppendUint64(p, uint64(t.Nano()))
	}
	return p
}

// bits is RNDGETENTCNT.
func (p *Pool) bits() (int, error) {
	var n int32
	err := p.ioctl(unix.RNDGETENTCNT, unsafe.Pointer(&n))
	return int(n), err
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
