//go:build vm

package vmtest

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rouse/quiesce"
	"rouse/vmm"
)

// A whole quiesce over a wire that loses one frame in twenty and lets them overtake each other: many clients send
// numbered bytes by TCP, UDP and a unix socket at random, and at a random moment the guest is quiesced. A clone of
// the snapshot then tells what had been delivered. Whatever the guest's kernel had acknowledged must be in it, in
// order and once; whatever the server had answered must have arrived; every datagram that was handed to the guest
// well before must have been read, or be counted as lost by the guest's kernel; and the machine itself goes on,
// with every byte of every connection. If the clients do not rest, the quiesce fails and names what was left.
// ROUSE_SEED replays the dice, though not the machine.
func TestDrainLosesNothing(t *testing.T) {
	seed := seedOf(t)
	forKernels(t, func(t *testing.T, series string) { testDrain(t, series, seed) })
}

const drainConfiguration = `[quiesce]
timeout = "40s"

[[interface]]
name = "eth1"
addresses = ["10.7.0.2/24", "fd07::2/64"]

[[service]]
name = "server"
exec = ["/usr/bin/drainguest"]
ready = "port"
ready-port = 7001

[[service]]
name = "local"
exec = ["/usr/bin/drainguest", "unix"]
after = ["server"]
`

func testDrain(t *testing.T, series string, seed uint64) {
	program := lab.program(t, "drainguest", "build", "-o", lab.Binary("drainguest"), "./internal/vmtest/drainguest")
	img := lab.Image(t, series, drainConfiguration, map[string]string{"/usr/bin/drainguest": program})
	l := newLink(t, seed)
	vm := Boot(t, img, func(c *vmm.Config) { c.Extra = l.arguments() })
	g := Talk(t, vm)
	g.Wait("running")
	dice := rand.New(rand.NewPCG(seed, 2))
	crowd := newCrowd(t, l, dice)
	for round := range 3 {
		time.Sleep(handOver + time.Duration(300+dice.IntN(1500))*time.Millisecond) // the moment of the quiesce
		restless := round == 1
		if !restless {
			time.AfterFunc(time.Duration(dice.IntN(800))*time.Millisecond, func() { crowd.rest.Store(true) })
		}
		if restless {
			began := time.Now()
			testRestless(t, g)
			crowd.closed = append(crowd.closed, [2]time.Time{began, time.Now()})
			continue
		}
		began := time.Now()
		var r quiesce.Report
		if g.Do("rouse-quiesce", nil, &r); r.Outcome != "ready" {
			t.Fatalf("round %d: %+v", round, r)
		}
		t.Logf("round %d: quiesced in %v, %d phases", round, time.Since(began).Round(time.Millisecond), len(r.Phases))
		crowd.check(t, clonedRecords(t, vm, img), began)
		if err := vm.Cont(t.Context()); err != nil {
			t.Fatal(err)
		}
		g.Do("rouse-release", nil, nil)
		g.Wait("running")
		crowd.rest.Store(false)
		crowd.closed = append(crowd.closed, [2]time.Time{began.Add(-handOver), time.Now().Add(handOver)})
	}
	crowd.finish(t)
	var lines []string
	g.Do("rouse-log", map[string]any{"service": "local", "lines": 100}, &lines)
	for _, line := range lines {
		t.Errorf("the local client: %s", line)
	}
}

// testRestless: clients that never pause are not drained in a short time, and the report says who they are.
func testRestless(t *testing.T, g *Guest) {
	t.Helper()
	err := g.Try("rouse-quiesce", map[string]any{"timeout-ms": 1500}, nil)
	s, r := g.Wait("running")
	if err == nil { // it found them all at rest by chance
		g.Do("rouse-release", nil, nil)
		g.Wait("running")
		t.Log("restless clients were at rest")
		return
	}
	if s.Gate != "open" || !strings.Contains(err.Error(), "server") {
		t.Errorf("gate %s after a failed quiesce, and an error that names nobody: %v", s.Gate, err)
	}
	t.Logf("restless: %v; %d left", err, len(r.Leftovers))
}

// records is what the server of a clone says that it had been delivered.
type records struct {
	streams   map[string][2]uint64 // received, sent
	datagrams map[uint32]datagramRecord
	drops     int // datagrams that its kernel has counted as lost
}

type datagramRecord struct {
	answers, twice int
	seen           *big.Int
}

// clonedRecords takes a snapshot, boots it as a clone whose wire leads nowhere, and asks its server.
func clonedRecords(t *testing.T, vm *vmm.VM, img string) records {
	t.Helper()
	memory := filepath.Join(t.TempDir(), "memory")
	if err := vm.Snapshot(t.Context(), memory); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(memory)
	dir, err := os.MkdirTemp("", "nowhere")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	clone := Boot(t, img, func(c *vmm.Config) {
		c.Incoming, c.Extra = memory, nic(filepath.Join(dir, "guest"), filepath.Join(dir, "host"))
	})
	defer clone.Close()
	g := Talk(t, clone)
	if s, r := g.Wait("running"); s.Generation == 0 || r.Kind != "adjust" {
		t.Fatalf("generation %d, report %s", s.Generation, r.Kind)
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		var lines []string
		g.Do("rouse-log", map[string]any{"service": "server", "lines": 200}, &lines)
		if len(lines) > 0 && strings.HasSuffix(lines[len(lines)-1], "end") {
			return parseRecords(t, lines)
		}
	}
	t.Fatal("the clone's server says nothing")
	return records{}
}

func parseRecords(t *testing.T, lines []string) records {
	t.Helper()
	r := records{streams: map[string][2]uint64{}, datagrams: map[uint32]datagramRecord{}}
	for _, line := range lines {
		_, rest, ok := strings.Cut(line, "record ")
		if !ok {
			t.Errorf("the server says: %s", line)
			continue
		}
		var generation int
		var name string
		var s [2]uint64
		var id uint32
		d := datagramRecord{seen: &big.Int{}}
		if n, _ := fmt.Sscanf(rest, "%d stream %s %d %d", &generation, &name, &s[0], &s[1]); n == 4 {
			r.streams[name] = s
		} else if n, _ := fmt.Sscanf(rest, "%d datagrams %d %d %d %x", &generation, &id, &d.answers, &d.twice, d.seen); n == 5 {
			r.datagrams[id] = d
		} else if n, _ := fmt.Sscanf(rest, "%d drops %d", &generation, &r.drops); n == 2 {
			continue
		}
	}
	return r
}

// crowd is the clients.
type crowd struct {
	link    *link
	streams []*speaker
	callers []*caller
	closed  [][2]time.Time // when the guest was quiesced: what came then was refused
	rest    atomic.Bool    // speakers write nothing more for now
	ended   atomic.Bool
	running sync.WaitGroup
}

// speaker is a TCP connection: numbered bytes go, and numbered answers come.
type speaker struct {
	name           string
	conn           *net.TCPConn
	sent, received atomic.Uint64
}

// caller sends numbered datagrams.
type caller struct {
	id       uint32
	conn     *net.UDPConn
	mu       sync.Mutex
	answered map[uint64]bool
}

func newCrowd(t *testing.T, l *link, dice *rand.Rand) *crowd {
	t.Helper()
	c := &crowd{link: l}
	hosts := []string{"10.7.0.2", "fd07::2"}
	for i := range 12 {
		s := &speaker{name: fmt.Sprintf("c%03d", i)}
		c.dial(t, "tcp", net.JoinHostPort(hosts[i%2], "7001"), func(conn net.Conn) { s.conn = conn.(*net.TCPConn) })
		c.streams = append(c.streams, s)
		one := rand.New(rand.NewPCG(dice.Uint64(), 0))
		c.running.Go(func() { c.speak(t, s, one) })
		c.running.Go(func() { s.listen(t) })
	}
	for i := range 6 {
		u := &caller{id: uint32(i), answered: map[uint64]bool{}}
		c.dial(t, "udp", net.JoinHostPort(hosts[i%2], "7002"), func(conn net.Conn) { u.conn = conn.(*net.UDPConn) })
		c.callers = append(c.callers, u)
		one := rand.New(rand.NewPCG(dice.Uint64(), 0))
		c.running.Go(func() { c.call(u, one) })
		c.running.Go(func() { u.listen(t) })
	}
	return c
}

func (c *crowd) dial(t *testing.T, network, address string, use func(net.Conn)) {
	t.Helper()
	err := c.link.in(func() error {
		conn, err := net.DialTimeout(network, address, time.Minute)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
			use(conn)
		}
		return err
	})
	if err != nil {
		t.Fatalf("dial %s %s: %v", network, address, err)
	}
}

func (c *crowd) speak(t *testing.T, s *speaker, dice *rand.Rand) {
	if _, err := s.conn.Write([]byte(s.name)); err != nil {
		t.Errorf("%s: %v", s.name, err)
		return
	}
	for !c.ended.Load() {
		if !c.rest.Load() {
			chunk := make([]byte, 1+dice.IntN(3000))
			for i := range chunk {
				chunk[i] = byte(s.sent.Load() + uint64(i))
			}
			n, err := s.conn.Write(chunk)
			s.sent.Add(uint64(n))
			if err != nil {
				t.Errorf("%s: %v", s.name, err)
				return
			}
		}
		time.Sleep(time.Duration(dice.IntN(30)) * time.Millisecond)
	}
	if err := s.conn.CloseWrite(); err != nil {
		t.Errorf("%s: %v", s.name, err)
	}
}

func (s *speaker) listen(t *testing.T) {
	buf := make([]byte, 8192)
	for {
		n, err := s.conn.Read(buf)
		for i, b := range buf[:n] {
			if want := ^byte(s.received.Load() + uint64(i)); b != want {
				t.Errorf("%s: answer %d is %d, not %d", s.name, s.received.Load()+uint64(i), b, want)
				return
			}
		}
		s.received.Add(uint64(n))
		if err != nil {
			if err != io.EOF {
				t.Errorf("%s: %v", s.name, err)
			}
			return
		}
	}
}

// acknowledged is how many of the bytes sent the guest's kernel has said that it has.
func (s *speaker) acknowledged(t *testing.T) uint64 {
	t.Helper()
	raw, err := s.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var unacked int
	var ioctl error
	// The order matters: what is sent between the two counts as not acknowledged.
	sent := s.sent.Load()
	if err := raw.Control(func(fd uintptr) { unacked, ioctl = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil || ioctl != nil {
		t.Fatal(err, ioctl)
	}
	return sent - min(sent, uint64(unacked))
}

func (c *crowd) call(u *caller, dice *rand.Rand) {
	for n := uint32(0); !c.ended.Load(); n++ {
		var b [8]byte
		binary.BigEndian.PutUint32(b[:], u.id)
		binary.BigEndian.PutUint32(b[4:], n)
		_, _ = u.conn.Write(b[:]) // an answer of ICMP may make it fail; then it was not sent
		pause := time.Duration(10+dice.IntN(60)) * time.Millisecond
		if c.rest.Load() { // a hold lets UDP on where nothing tracks it, and a slow guest with all of it never rests
			pause *= 10
		}
		time.Sleep(pause)
	}
	u.conn.Close()
}

func (u *caller) listen(t *testing.T) {
	var b [64]byte
	for {
		n, err := u.conn.Read(b[:])
		if err != nil {
			if strings.Contains(err.Error(), "closed") {
				return
			}
			continue
		}
		number := binary.BigEndian.Uint64(b[:])
		u.mu.Lock()
		if n != 8 || u.answered[number] {
			t.Errorf("caller %d: answer %x of %d bytes came twice", u.id, number, n)
		}
		u.answered[number] = true
		u.mu.Unlock()
	}
}

// handOver is how long before the quiesce a frame must have been given to QEMU to be in the guest for sure.
const handOver = 1500 * time.Millisecond

// check compares what a clone's server says with what the clients and the wire know. Nothing moves meanwhile: the
// guest is stopped, and what was on the wire has landed.
func (c *crowd) check(t *testing.T, r records, quiesced time.Time) {
	t.Helper()
	for _, s := range c.streams {
		got, ok := r.streams[s.name]
		acked := s.acknowledged(t)
		switch {
		case !ok && acked > 0:
			t.Errorf("%s: %d bytes acknowledged, and the server knows of none", s.name, acked)
		case acked > got[0]:
			t.Errorf("%s: %d bytes acknowledged, %d delivered: the rest is lost in silence", s.name, acked, got[0])
		case got[0] > s.sent.Load():
			t.Errorf("%s: %d bytes sent, %d delivered", s.name, s.sent.Load(), got[0])
		case s.received.Load() != got[1]:
			t.Errorf("%s: %d bytes answered, %d arrived", s.name, got[1], s.received.Load())
		}
	}
	if unix := r.streams["unix"]; unix[0] == 0 || unix[0] != unix[1] {
		t.Errorf("unix: %d bytes delivered, %d answered", unix[0], unix[1])
	}
	c.checkDatagrams(t, r, quiesced)
}

func (c *crowd) checkDatagrams(t *testing.T, r records, quiesced time.Time) {
	t.Helper()
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	var missing []string
	owed, returned := 0, map[uint32]int{}
	for id, at := range l.handed {
		if at.After(quiesced.Add(-handOver)) || c.refused(at) {
			continue
		}
		owed++
		if d, ok := r.datagrams[uint32(id>>32)]; !ok || d.seen.Bit(int(uint32(id))) == 0 {
			missing = append(missing, fmt.Sprintf("%x, handed over %v before", id, quiesced.Sub(at)))
		}
	}
	if len(missing) > r.drops {
		t.Errorf("%d datagrams were not delivered, and the kernel counts %d as lost: %q", len(missing), r.drops, missing)
	}
	for id := range l.returned {
		returned[uint32(id>>32)]++
		if d, ok := r.datagrams[uint32(id>>32)]; !ok || d.seen.Bit(int(uint32(id))) == 0 {
			t.Errorf("datagram %x was answered and is not known", id)
		}
	}
	for id, d := range r.datagrams {
		if d.twice > 0 || d.answers != returned[id] {
			t.Errorf("caller %d: %d datagrams came twice; %d answered, %d left the guest", id, d.twice, d.answers, returned[id])
		}
	}
	t.Logf("%d datagrams owed, %d delivered, %d counted as lost, %d answers left", owed, owed-len(missing), r.drops, len(l.returned))
}

// refused tells whether the guest was quiesced then.
func (c *crowd) refused(at time.Time) bool {
	for _, w := range c.closed {
		if at.After(w[0]) && at.Before(w[1]) {
			return true
		}
	}
	return false
}

// finish ends the clients, and wants every byte answered.
func (c *crowd) finish(t *testing.T) {
	t.Helper()
	for _, s := range c.streams {
		if err := s.conn.SetReadDeadline(time.Now().Add(Timeout)); err != nil {
			t.Fatal(err)
		}
	}
	c.ended.Store(true)
	c.running.Wait()
	total := uint64(0)
	for _, s := range c.streams {
		total += s.sent.Load()
		if s.sent.Load() != s.received.Load() {
			t.Errorf("%s: %d bytes sent, %d answered", s.name, s.sent.Load(), s.received.Load())
		}
	}
	t.Logf("%d bytes by %d connections, all answered", total, len(c.streams))
}
