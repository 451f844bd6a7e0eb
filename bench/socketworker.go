package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"rouse/quiesce/sockdiag"
)

// The worker's namespace is serverNet, joined to that of the clients.
const (
	clientNet  = "clients"
	serverAddr = "10.1.0.1"
	crowdPort  = 7000
	crowdEach  = 16000 // connections of one process: it may not be allowed more descriptors
	lookTimes  = 5
)

// socketWorker is the whole comparison with n connections, once.
func socketWorker(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if err := errors.Join(ownRun(), loopback()); err != nil {
		return err
	}
	if err := ip("netns add " + clientNet + "\nlink add s type veth peer name c netns " + clientNet + "\naddr add " + serverAddr + "/24 dev s\nlink set s up\n"); err != nil {
		return err
	}
	if err := ip("addr add 10.1.0.2/24 dev c\nlink set c up\n", "-n", clientNet); err != nil {
		return err
	}
	ins, err := sockdiag.New(sockdiag.Options{})
	if err != nil {
		return err
	}
	defer ins.Close()
	for i, destroy := range []struct {
		name string
		do   func(n int) (cost, error)
	}{{"rouse", func(n int) (cost, error) { return sever(ins, n) }}, {"ss -K", ssKill}} {
		if i > 0 && n == 0 {
			break
		}
		crowd, err := gatherSockets(n)
		if err == nil && i == 0 {
			err = looks(ins, n)
		}
		if err == nil && n > 0 {
			var took cost
			if took, err = destroy.do(n); err == nil {
				took.print(destroy.name, n, "destroy")
			}
		}
		crowd.end()
		if err != nil {
			return fmt.Errorf("%s: %w", destroy.name, err)
		}
	}
	fmt.Println("done")
	return nil
}

// cost is what something took.
type cost struct{ wall, cpu time.Duration }

func (c cost) print(name string, n int, metric string) {
	result(name, n, metric, "ms", c.wall.Seconds()*1000)
	result(name, n, metric+"-cpu", "ms", c.cpu.Seconds()*1000)
}

// costs runs f, which may start programs; what those use counts too.
func costs(f func() error) (cost, error) {
	runtime.GC() // the garbage of the last is not of this
	cpu, began := cpuUsed(), time.Now()
	err := f()
	return cost{time.Since(began), cpuUsed() - cpu}, err
}

// cpuUsed is that of this process and of all children that were waited for.
func cpuUsed() (all time.Duration) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if unix.Getrusage(who, &u) == nil {
			all += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return all
}

// looks takes turns.
func looks(ins *sockdiag.Inspector, n int) error {
	cases := []struct {
		name string
		look func() error
	}{
		{"rouse", func() error {
			left, err := ins.Busy(context.Background())
			if err == nil && len(left) > 0 {
				err = fmt.Errorf("%d sockets are busy", len(left))
			}
			return err
		}},
		{"ss -tan", func() error {
			out, err := exec.Command("ss", "-tanH").Output()
			return enough(bytes.Count(out, []byte("\n")), n, err)
		}},
		{"/proc/net/tcp", func() error {
			rows, busy, err := procTCP()
			if busy > 0 {
				err = errors.Join(err, fmt.Errorf("%d sockets are busy", busy))
			}
			return enough(rows, n, err)
		}},
	}
	for i := range lookTimes + 1 {
		for _, c := range cases {
			took, err := costs(c.look)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if i > 0 { // one to warm up
				took.print(c.name, n, "look")
			}
		}
	}
	return nil
}

func enough(rows, n int, err error) error {
	if err == nil && rows < n {
		err = fmt.Errorf("%d of %d sockets", rows, n)
	}
	return err
}

// procTCP reads what /proc tells of TCP.
func procTCP() (rows, busy int, err error) {
	for _, path := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		r, b, err := parseProcTCP(text)
		if err != nil {
			return 0, 0, fmt.Errorf("%s: %w", path, err)
		}
		rows, busy = rows+r, busy+b
	}
	return rows, busy, nil
}

// parseProcTCP does it as leanly as can be: a row is a socket, tx_queue:rx_queue its fifth word. Those that listen and those in
// TIME_WAIT hold nothing that would count.
func parseProcTCP(text []byte) (rows, busy int, err error) {
	_, text, _ = bytes.Cut(text, []byte("\n"))
	for len(text) > 0 {
		var line []byte
		line, text, _ = bytes.Cut(text, []byte("\n"))
		words := bytes.Fields(line)
		if len(words) < 5 {
			return 0, 0, fmt.Errorf("row %q", line)
		}
		rows++
		if state := string(words[3]); state != "0A" && state != "06" && string(words[4]) != "00000000:00000000" {
			busy++
		}
	}
	return rows, busy, nil
}

// sever is what rouse does behind its gate: every connection to a peer outside is destroyed by its cookie.
func sever(ins *sockdiag.Inspector, n int) (cost, error) {
	return costs(func() error {
		list, err := ins.Inherited(context.Background())
		if err := enough(len(list), n, err); err != nil {
			return err
		}
		left, err := ins.Destroy(context.Background(), list)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d are left", len(left))
		}
		return err
	})
}

func ssKill(n int) (cost, error) {
	took, err := costs(func() error {
		out, err := exec.Command("ss", "-K", "-tnH", "state", "established").Output()
		return enough(bytes.Count(out, []byte("\n")), n, err)
	})
	if err != nil {
		return took, err
	}
	rows, err := exec.Command("ss", "-tnH", "state", "established").Output()
	if err == nil && len(rows) > 0 {
		err = fmt.Errorf("ss -K left %d", bytes.Count(rows, []byte("\n")))
	}
	return took, err
}

// socketCrowd are processes that hold connections: servers here, clients in the other namespace.
type socketCrowd []*floorProcess

func (c socketCrowd) end() {
	for i := len(c) - 1; i >= 0; i-- { // clients first: they reset, and no TIME_WAIT stays
		c[i].end()
	}
}

// gatherSockets opens n connections; the crowd has to be ended with an error, too.
func gatherSockets(n int) (crowd socketCrowd, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for i := 0; n > 0; i++ {
		some, port := strconv.Itoa(min(n, crowdEach)), strconv.Itoa(crowdPort+i)
		n -= crowdEach
		server, err := startFloor(context.Background(), 0, self, crowdArg, "serve", port, some)
		if err != nil {
			return crowd, err
		}
		crowd = append(crowd, server)
		if line, err := server.line(); line != "listening" {
			return crowd, fmt.Errorf("server: %q: %w", line, err)
		}
		client, err := startFloor(context.Background(), 0, "ip", "netns", "exec", clientNet, self, crowdArg, "connect", port, some)
		if err != nil {
			return crowd, err
		}
		crowd = append(crowd, client)
		for _, p := range []*floorProcess{client, server} {
			if line, err := p.line(); line != "ready" {
				return crowd, fmt.Errorf("crowd: %q: %w", line, err)
			}
		}
	}
	return crowd, nil
}

// socketCrowdMain is `serve PORT N` or `connect PORT N`.
func socketCrowdMain(args []string) error {
	port, n, err := numbers(args[1], args[2])
	if err != nil {
		return err
	}
	raiseFiles()
	at := &unix.SockaddrInet4{Port: port}
	copy(at.Addr[:], []byte{10, 1, 0, 1})
	if args[0] == "serve" {
		err = acceptMany(at, n)
	} else {
		err = connectMany(at, n)
	}
	if err != nil {
		return err
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin) // until the worker ends it
	return err
}

func acceptMany(at *unix.SockaddrInet4, n int) error {
	l, err := resetting()
	if err != nil {
		return err
	}
	if err := errors.Join(unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Bind(l, at), unix.Listen(l, 4096)); err != nil {
		return err
	}
	fmt.Println("listening")
	for range n {
		if _, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC); err != nil {
			return fmt.Errorf("accept: %w", err)
		}
	}
	return nil
}

func connectMany(at *unix.SockaddrInet4, n int) error {
	for range n {
		c, err := resetting()
		if err == nil {
			err = unix.Connect(c, at)
		}
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
	}
	return nil
}

// resetting is a socket whose close sends RST; accepted ones inherit that.
func resetting() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return fd, unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}
