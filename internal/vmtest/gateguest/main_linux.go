// Command gateguest is the guest's side of the gate's VM tests. It serves one TCP port; every line that
// comes is a request, every answer is a line too, and both go over the connection whose survival is part
// of the test.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// request is what the host asks for; see its operations in serve.
type request struct {
	Op       string   // ctl, closed, kill
	Tag      string   // marks the ticks of closed
	Args     []string // of rousectl gate
	MS       int      // how long the gate stays so
	NoCgroup bool     // rousectl sees no cgroup hierarchy
	Seed     uint64
	Rounds   int
}

// answer is how it went.
type answer struct {
	Out, Err string
	Status   json.RawMessage // what `gate status` said in between
	First    uint64          // number of the last tick before the gate was shut for sure
	Last     uint64          // number of the first tick that was sent when it was being opened
	Heard    string          // what came over the connection while it was shut, read after it had opened
	Killed   map[string]int  // outcomes by name
}

func main() {
	if err := knowHost(); err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("tcp", ":7000")
	if err != nil {
		log.Fatal(err)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(c)
	}
}

// knowHost makes QEMU's host a permanent neighbour: a tick must not have to ask for it first.
func knowHost() error {
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	return netlink.NeighSet(&netlink.Neigh{LinkIndex: eth0.Attrs().Index, State: netlink.NUD_PERMANENT,
		IP: net.IPv4(10, 0, 2, 2), HardwareAddr: net.HardwareAddr{0x52, 0x55, 10, 0, 2, 2}})
}

func serve(c net.Conn) {
	defer c.Close()
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		var r request
		var a answer
		err := json.Unmarshal(lines.Bytes(), &r)
		switch {
		case err != nil:
		case r.Op == "ctl":
			a.Out, err = ctl(r.NoCgroup, r.Args...)
		case r.Op == "closed":
			err = closed(c, lines, r, &a)
		case r.Op == "kill":
			err = kill(r, &a)
		default:
			err = fmt.Errorf("no operation %q", r.Op)
		}
		if err != nil {
			a.Err = err.Error()
		}
		text, _ := json.Marshal(a)
		if _, err := c.Write(append(text, '\n')); err != nil {
			log.Print(err)
			return
		}
	}
}

// ctl runs `rousectl gate`.
func ctl(noCgroup bool, args ...string) (string, error) {
	var out []byte
	err := in(noCgroup, func() (err error) {
		out, err = exec.Command("/sbin/rousectl", append([]string{"gate"}, args...)...).Output()
		return err
	})
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		err = fmt.Errorf("gate %q: %w: %s", args, err, failed.Stderr)
	}
	return string(out), err
}

// in runs f in a mount namespace without cgroups, if that is wanted: what a kernel without CONFIG_CGROUP_BPF
// is to the gate. The thread ends with it.
func in(noCgroup bool, f func() error) error {
	if !noCgroup {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- errors.Join(
			told(unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS), "unshare"),
			told(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), "make mounts private"),
			told(unix.Unmount("/sys/fs/cgroup", unix.MNT_DETACH), "unmount cgroups"),
			f())
	}()
	return <-done
}

func told(err error, what string) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// closed holds or shuts the gate by hand, tries to get out by all ways, and opens it again.
func closed(c net.Conn, lines *bufio.Scanner, r request, a *answer) error {
	t, err := startTicks(r.Tag)
	if err != nil {
		return err
	}
	defer t.stop()
	if _, err := ctl(r.NoCgroup, r.Args...); err != nil {
		return err
	}
	a.First = t.sent.Load()
	status, err := ctl(r.NoCgroup, "status", "--json")
	if err != nil {
		return err
	}
	a.Status = json.RawMessage(status)
	shut := r.Args[0] == "shut"
	// What is said now must not be heard before the gate opens; while it holds it is.
	if _, err := c.Write([]byte("early\n")); err != nil {
		return err
	}
	if !shut && !lines.Scan() {
		return errors.New("nothing came while the gate held")
	}
	for end := time.Now().Add(time.Duration(r.MS) * time.Millisecond); time.Now().Before(end); {
		attempt(shut)
		time.Sleep(50 * time.Millisecond)
	}
	if shut { // or what asks for neighbours, three times a second apart, might be the first to get out when it opens
		time.Sleep(3500 * time.Millisecond)
	}
	a.Last = t.sent.Load() + 1
	if _, err := ctl(r.NoCgroup, "open"); err != nil {
		return err
	}
	for end := t.sent.Load() + 100; t.sent.Load() < end; {
		time.Sleep(10 * time.Millisecond)
	}
	if shut && !lines.Scan() {
		return fmt.Errorf("the connection ended: %w", lines.Err())
	}
	a.Heard = lines.Text()
	return nil
}

// ticks are numbered datagrams to the host, one a millisecond. They tell in a capture when the gate let
// something pass.
type ticks struct {
	sent atomic.Uint64
	end  atomic.Bool
	done chan struct{}
}

func startTicks(tag string) (*ticks, error) {
	c, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return nil, err
	}
	t := &ticks{done: make(chan struct{})}
	host := netip.MustParseAddrPort("10.0.2.2:9")
	go func() {
		defer close(t.done)
		defer c.Close()
		for !t.end.Load() {
			// A gate may refuse: that is a drop like others.
			_, _ = c.WriteToUDPAddrPort(fmt.Appendf(nil, "tick %s %d.", tag, t.sent.Load()+1), host)
			t.sent.Add(1)
			time.Sleep(time.Millisecond)
		}
	}()
	return t, nil
}

func (t *ticks) stop() {
	t.end.Store(true)
	<-t.done
}

// say sends a datagram; a gate may refuse, which is no error here.
func say(network, to, text string) {
	c, err := net.Dial(network, to)
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte(text))
}

// attempt tries to get out in every way that a guest has.
func attempt(shut bool) {
	if c, err := net.DialTimeout("tcp", "10.0.2.2:9", time.Millisecond); err == nil {
		c.Close()
	}
	if !shut {
		return
	}
	for _, to := range []string{"10.0.2.3:9", "10.0.2.77:9", "10.0.2.255:9", "255.255.255.255:9", "224.0.0.251:5353",
		"[fe80::2%eth0]:9", "[fe80::77%eth0]:9", "[ff02::fb%eth0]:5353"} {
		say("udp", to, "must not leave")
	}
	say("ip4:icmp", "10.0.2.2", "\x08\x00\xf7\xff\x00\x00\x00\x00")
	if ifi, err := net.InterfaceByName("eth0"); err == nil {
		frame(ifi)
	}
}

// frame goes around the IP stack: a broadcast of an experimental ether type.
func frame(ifi *net.Interface) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	b := make([]byte, 60)
	copy(b, "\xff\xff\xff\xff\xff\xff")
	copy(b[6:], ifi.HardwareAddr)
	b[12], b[13] = 0x88, 0xb5
	_ = unix.Sendto(fd, b, 0, &unix.SockaddrLinklayer{Ifindex: ifi.Index})
}

// kill starts `rousectl gate shut` and `open` by turns and kills each at a random moment of its life, then
// asks what stands. Whatever it is, the next command has to work.
func kill(r request, a *answer) error {
	dice := rand.New(rand.NewPCG(r.Seed, 0))
	a.Killed = map[string]int{}
	life := map[string]time.Duration{}
	for _, word := range []string{"shut", "open"} {
		began := time.Now()
		if _, err := ctl(false, word); err != nil {
			return err
		}
		life[word] = time.Since(began)
	}
	for n := range r.Rounds {
		word, other := "shut", "open"
		if n%2 == 1 {
			word, other = other, word
		}
		if _, err := ctl(false, other); err != nil { // the next command after a kill
			return fmt.Errorf("round %d: %w", n, err)
		}
		cmd := exec.Command("/sbin/rousectl", "gate", word)
		if err := cmd.Start(); err != nil {
			return err
		}
		time.Sleep(time.Duration(dice.Int64N(int64(life[word]))))
		_ = cmd.Process.Signal(syscall.SIGKILL)
		outcome := "killed"
		if cmd.Wait() == nil {
			outcome = "ended"
		}
		now, err := standing()
		if err != nil {
			return fmt.Errorf("round %d, seed %d, %s: %w", n, r.Seed, word, err)
		}
		a.Killed[word+" "+outcome+": "+now]++
	}
	out, err := ctl(false, "open", "--force")
	if now, err2 := standing(); err2 != nil || now != "open" {
		return errors.Join(err, err2, fmt.Errorf("after open --force: %s, %s", now, out))
	}
	return err
}

// standing is the state that the first rung of the ladder is in: it sees all that IP is. A rung that is
// neither must not be.
func standing() (string, error) {
	text, err := ctl(false, "status", "--json")
	if err != nil {
		return "", err
	}
	var rungs []struct{ Mechanism, State, Problem string }
	if err := json.Unmarshal([]byte(text), &rungs); err != nil || len(rungs) == 0 {
		return "", fmt.Errorf("status %q: %w", text, err)
	}
	var parts []string
	for _, r := range rungs {
		if r.State != "open" || r.Problem != "" {
			p := r.Mechanism + " " + r.State
			if r.Problem != "" {
				p += " (" + r.Problem + ")"
			}
			parts = append(parts, p)
		}
	}
	if parts == nil {
		return "open", nil
	}
	return strings.Join(parts, ", "), nil
}
