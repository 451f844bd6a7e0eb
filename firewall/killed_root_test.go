//go:build root

package firewall

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// client is this test binary as rousectl: it sets the gate of its namespace and ends. It says when it
// begins to set, for that is a small part of its life.
func client() error {
	s, err := ParseState(os.Getenv("GATE_CLIENT"))
	if err != nil {
		return err
	}
	g, err := New(Options{Mechanism: os.Getenv("GATE_MECHANISM"), cgroup: os.Getenv("GATE_CGROUP")})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return errors.Join(g.Set(s), g.Detach())
}

// A client is killed at random moments of its life, most of them while it sets the gate. What stands is then the
// old state or the new one: of the four ways (in and out, IPv4 and IPv6) all are free or none is; the next
// command works, and open --force leaves nothing. GATE_KILLS and GATE_SEED say how often, and replay.
func TestClientKilled(t *testing.T) {
	kills, seed := envInt(t, "GATE_KILLS", 24), envInt(t, "GATE_SEED", int(time.Now().UnixNano()&0xffffff))
	t.Logf("GATE_SEED=%d", seed)
	for _, name := range append([]string{"fib"}, mechanisms...) {
		t.Run(name, func(t *testing.T) { killClients(t, name, kills, rand.New(rand.NewPCG(uint64(seed), 0))) })
	}
}

func envInt(t *testing.T, name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func killClients(t *testing.T, mechanism string, kills int, dice *rand.Rand) {
	a, b, g := pair(t, Options{Mechanism: mechanism})
	permanentNeighbours(t, a, b)
	look := func() string { return a.sh(t, "nft list ruleset; tc qdisc; ip rule; ip -6 rule") }
	before := look()
	w := newWays(t, a, b)
	if n := w.free(t); n != 4 {
		t.Fatalf("%d ways are free at first", n)
	}
	began := time.Now()
	set(t, g, Shut)
	setting := time.Since(began)
	outcomes := map[string]int{}
	for n := range kills {
		old, to := Shut, Open
		if n%2 == 1 {
			old, to = to, old
		}
		set(t, g, old) // the next command
		ended := killOne(t, a, mechanism, to, setting, dice)
		s, err := g.State()
		free := w.free(t)
		switch {
		case err != nil && !errors.Is(err, ErrTampered):
			t.Fatal(err)
		case free != 0 && free != 4:
			t.Errorf("kill %d: %d of 4 ways are free; %v, %v", n, free, s, err)
		case err == nil && (s == Shut) != (free == 0), ended && (err != nil || s != to):
			t.Errorf("kill %d, of %v: %v, %v, %d of 4 ways are free; ended %t%s", n, to, s, err, free, ended, effective(a.cgroup))
		}
		outcomes[fmt.Sprintf("%v: free %d, ended %t, as a gate of ours %t", to, free, ended, err == nil)]++
	}
	for what, n := range outcomes {
		t.Logf("%3d %s", n, what)
	}
	o := Options{Mechanism: mechanism, cgroup: a.cgroup}
	a.must(t, func() error { return ForceOpen(o) })
	if after := look(); after != before || w.free(t) != 4 {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if left, _ := filepath.Glob(a.cgroup + "/" + probeName + "*"); a.cgroup != "" && len(left) > 0 {
		t.Errorf("cgroups left: %q", left)
	}
}

// effective names the programs that a cgroup obeys, those of the cgroups above it included: somebody else's shut gate
// on the machine's root is none that the test's own could read.
func effective(dir string) (names string) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	for _, typ := range attachTypes {
		ids := make([]uint32, maxPrograms)
		attr := struct { // bpfQuery, with the query's flags
			target, attachType, flags, _ uint32
			programs                     unsafe.Pointer
			count, _                     uint32
		}{uint32(fd), typ, unix.BPF_F_QUERY_EFFECTIVE, 0, unsafe.Pointer(&ids[0]), maxPrograms, 0}
		if _, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
			return err.Error()
		}
		for _, id := range ids[:attr.count] {
			info, err := infoByID(id)
			names += fmt.Sprintf("; obeys program %d %q %v", id, info.name, err)
		}
	}
	return names
}

// killOne runs a client and kills it, three times of four while it sets. It says whether the client came to its end.
func killOne(t *testing.T, h *host, mechanism string, to State, setting time.Duration, dice *rand.Rand) bool {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "GATE_CLIENT="+to.String(), "GATE_MECHANISM="+mechanism, "GATE_CGROUP="+h.cgroup)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.must(t, cmd.Start)
	if dice.IntN(4) > 0 {
		_, _ = io.ReadFull(out, make([]byte, len("ready")))
		time.Sleep(time.Duration(dice.Int64N(int64(2*setting) + 1)))
	} else {
		time.Sleep(time.Duration(dice.IntN(30)) * time.Millisecond)
	}
	_ = cmd.Process.Kill()
	if err = cmd.Wait(); err == nil {
		return true
	}
	var status *exec.ExitError
	if errors.As(err, &status) && status.ExitCode() >= 0 {
		t.Fatalf("client: %v: %s", err, stderr.String())
	}
	return false
}

// ways are datagram sockets on both hosts, for both families.
type ways struct {
	a, b     *host
	sockets  map[string]*net.UDPConn
	sequence int
}

func newWays(t *testing.T, a, b *host) *ways {
	w := &ways{a: a, b: b, sockets: map[string]*net.UDPConn{}}
	for _, network := range []string{"10.1.0.%d:7000", "[fd00:1::%d]:7000"} {
		for i, h := range []*host{a, b} {
			at := fmt.Sprintf(network, i+1)
			c := h.udp(t, at, "")
			if err := c.SetDeadline(time.Time{}); err != nil { // nothing here waits, and many kills take long
				t.Fatal(err)
			}
			w.sockets[at] = c
		}
	}
	return w
}

// free counts the ways that a datagram takes now.
func (w *ways) free(t *testing.T) (n int) {
	t.Helper()
	w.sequence++
	text := strconv.Itoa(w.sequence)
	for _, way := range [][2]string{
		{"10.1.0.1:7000", "10.1.0.2:7000"}, {"10.1.0.2:7000", "10.1.0.1:7000"},
		{"[fd00:1::1]:7000", "[fd00:1::2]:7000"}, {"[fd00:1::2]:7000", "[fd00:1::1]:7000"},
	} {
		h := w.a
		if strings.Contains(way[0], "2:7000") || strings.Contains(way[0], ":2]:7000") {
			h = w.b
		}
		_ = h.run(func() error { return send(w.sockets[way[0]], way[1], text) }) // a gate may refuse
	}
	settleReceivePath(t)
	for _, c := range w.sockets {
		for {
			got, err := peekDatagram(c)
			if err != nil {
				break
			}
			if got == text {
				n++
			}
		}
	}
	return n
}

// peekDatagram takes one datagram if there is one.
func peekDatagram(c *net.UDPConn) (string, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return "", err
	}
	b := make([]byte, 64)
	var n int
	var received error
	err = raw.Read(func(fd uintptr) bool {
		n, _, received = unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT)
		return true
	})
	if err = errors.Join(err, received); err != nil {
		return "", err
	}
	return string(b[:n]), nil
}
