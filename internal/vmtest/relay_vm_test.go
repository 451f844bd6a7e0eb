//go:build vm

package vmtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// link is a bad wire between a guest's second NIC and a network namespace of the test's own, whose kernel is the
// clients' TCP: every frame of both directions passes through here, is lost or delayed by chance, and is seen.
type link struct {
	netns *os.File
	tap   int
	qemu  *net.UnixConn // datagrams are frames
	peer  *net.UnixAddr
	mu    sync.Mutex
	dice  *rand.Rand
	gone  atomic.Bool

	// The test's datagrams, by their eight bytes: when one was handed to the guest, and whether the guest sent
	// one back.
	handed   map[uint64]time.Time
	returned map[uint64]bool
}

const (
	lostPercent = 5
	longestWay  = 20 * time.Millisecond // a frame's delay is random: later ones overtake
)

// newLink makes the namespace with 10.7.0.1 and fd07::1 in it.
func newLink(t *testing.T, seed uint64) *link {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("not root: cannot make a network namespace and a tap device for the clients")
	}
	l := &link{dice: rand.New(rand.NewPCG(seed, 1)), handed: map[uint64]time.Time{}, returned: map[uint64]bool{}}
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		made <- l.makeNetns()
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "link") // a short path, for socket addresses
	if err != nil {
		t.Fatal(err)
	}
	l.peer = &net.UnixAddr{Name: filepath.Join(dir, "guest"), Net: "unixgram"}
	if l.qemu, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "host"), Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	var pumps sync.WaitGroup
	pumps.Go(l.toGuest)
	pumps.Go(l.fromGuest)
	t.Cleanup(func() {
		l.gone.Store(true)
		l.qemu.Close()
		unix.Close(l.tap)
		l.netns.Close()
		pumps.Wait()
		os.RemoveAll(dir)
	})
	return l
}

func (l *link) makeNetns() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	var err error
	if l.netns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return err
	}
	if l.tap, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open /dev/net/tun (CONFIG_TUN): %w", err)
	}
	req, err := unix.NewIfreq("wire")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(l.tap, unix.TUNSETIFF, req); err != nil {
		return err
	}
	for _, name := range []string{"lo", "wire"} {
		dev, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if name == "wire" {
			for _, s := range []string{"10.7.0.1/24", "fd07::1/64"} {
				a, err := netlink.ParseAddr(s)
				if err != nil {
					return err
				}
				a.Flags = unix.IFA_F_NODAD
				if err := netlink.AddrAdd(dev, a); err != nil {
					return err
				}
			}
		}
		if err := netlink.LinkSetUp(dev); err != nil {
			return err
		}
	}
	return nil
}

// arguments are QEMU's for the guest's end. Names are eth1's, for eth0 is QEMU's own network.
func (l *link) arguments() []string {
	return nic(l.peer.Name, l.qemu.LocalAddr().String())
}

func nic(local, remote string) []string {
	return []string{
		"-netdev", "dgram,id=wire,local.type=unix,local.path=" + local + ",remote.type=unix,remote.path=" + remote,
		"-device", "virtio-net-pci,netdev=wire,mac=52:54:00:12:34:99,romfile=",
	}
}

// in runs f on a thread in the clients' namespace.
func (l *link) in(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(l.netns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func (l *link) toGuest() {
	buf := make([]byte, 1<<16)
	for !l.gone.Load() {
		n, err := unix.Read(l.tap, buf)
		if err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return
		}
		frame := append([]byte(nil), buf[:n]...)
		l.pass(func() {
			if _, err := l.qemu.WriteToUnix(frame, l.peer); err != nil {
				return // no guest yet, or none any more
			}
			if id, ok := datagram(frame); ok {
				l.mu.Lock()
				l.handed[id] = time.Now()
				l.mu.Unlock()
			}
		})
	}
}

func (l *link) fromGuest() {
	buf := make([]byte, 1<<16)
	for !l.gone.Load() {
		n, err := l.qemu.Read(buf)
		if err != nil {
			return
		}
		frame := append([]byte(nil), buf[:n]...)
		if id, ok := datagram(frame); ok {
			l.mu.Lock()
			l.returned[id] = true
			l.mu.Unlock()
		}
		l.pass(func() { _, _ = unix.Write(l.tap, frame) })
	}
}

// pass loses a frame, or delivers it later.
func (l *link) pass(deliver func()) {
	l.mu.Lock()
	lost, delay := l.dice.IntN(100) < lostPercent, time.Duration(l.dice.Int64N(int64(longestWay)))
	l.mu.Unlock()
	if !lost {
		time.AfterFunc(delay, func() {
			if !l.gone.Load() {
				deliver()
			}
		})
	}
}

// datagram reads the eight bytes of one of the test's own, over IPv4 or IPv6, to or from port 7002.
func datagram(f []byte) (uint64, bool) {
	at := 0
	switch {
	case len(f) > 42 && f[12] == 0x08 && f[13] == 0 && f[23] == 17:
		at = 14 + int(f[14]&15)*4
	case len(f) > 62 && f[12] == 0x86 && f[13] == 0xdd && f[20] == 17:
		at = 54
	}
	if at == 0 || len(f) < at+16 || binary.BigEndian.Uint16(f[at+4:]) != 16 {
		return 0, false
	}
	if binary.BigEndian.Uint16(f[at:]) != 7002 && binary.BigEndian.Uint16(f[at+2:]) != 7002 {
		return 0, false
	}
	return binary.BigEndian.Uint64(f[at+8:]), true
}
