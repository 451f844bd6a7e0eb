package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rouse/genid/sysgenid"
)

// crowd is n watchers of a generation; round raises it and returns when the last has acknowledged.
type crowd struct {
	round func() error
	close func()
}

// watchArg makes this program some of a crowd's watchers: `KIND PATH N`.
const watchArg = "watch-crowd"

// watchEach is how many watchers a process has: each is a thread, and has up to four descriptors.
const watchEach = 2000

// overBus compares the device with the way of sysgenid's user-space predecessor: a signal on a message bus, and
// a method call of every watcher.
func overBus(ctx context.Context, l *lab, r *Record) error {
	files := raiseFiles()
	sizes := []int{1, 10, 100, 1000, 10000}
	if l.quick {
		sizes = []int{1, 100}
	}
	for _, n := range sizes {
		if n+1000 > files { // the bus has a connection of each
			r.leaveOut("%d watchers: the bus needs a descriptor for each, and %d are allowed here", n, files)
			continue
		}
		if err := l.compareCrowds(ctx, r, n); err != nil {
			return err
		}
	}
	return nil
}

// watchers starts n, in as many processes as they need.
func watchers(ctx context.Context, kind, path string, n int) (end func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var all []*floorProcess
	end = func() {
		for _, p := range all {
			p.end()
		}
	}
	for ; n > 0; n -= watchEach {
		p, err := startFloor(ctx, 0, self, watchArg, kind, path, strconv.Itoa(min(n, watchEach)))
		if err != nil {
			end()
			return nil, err
		}
		all = append(all, p)
		if line, err := p.line(); line != "ready" {
			end()
			return nil, fmt.Errorf("watchers: %q: %w", line, err)
		}
	}
	return end, nil
}

func watchMain(args []string) error {
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	raiseFiles()
	watch := map[string]func(string) error{"device": watchDevice, "bus": watchBus}[args[0]]
	for range n {
		if err := watch(args[1]); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin) // until it is ended
	return err
}

func watchDevice(path string) error {
	c, err := sysgenid.Open(path)
	if err != nil {
		return err
	}
	if err := c.Track(true); err != nil {
		return err
	}
	go c.Watch(context.Background(), func(context.Context, uint32) error { return nil })
	return nil
}

func watchBus(path string) error {
	w, err := dialBus(path)
	if err != nil {
		return err
	}
	if err := w.call(busDaemon, "AddMatch", "type='signal',interface='"+busName+"'", nil); err != nil {
		return err
	}
	go w.watch()
	return nil
}

func (l *lab) compareCrowds(ctx context.Context, r *Record, n int) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	crowds := map[string]crowd{}
	for name, gather := range map[string]func(context.Context, int) (crowd, error){"rouse": l.deviceCrowd, "D-Bus": l.busCrowd} {
		c, err := gather(ctx, n)
		if err != nil {
			return fmt.Errorf("%s with %d watchers: %w", name, n, err)
		}
		defer c.close()
		crowds[name] = c
	}
	for i := range l.repeat(7) + 1 {
		for _, name := range []string{"rouse", "D-Bus"} {
			began := time.Now()
			if err := crowds[name].round(); err != nil {
				return fmt.Errorf("%s with %d watchers: %w", name, n, err)
			}
			if i > 0 { // one to warm up
				r.add(name, n, "round", "ms", time.Since(began).Seconds()*1000)
			}
		}
	}
	return nil
}

// serve serves a device by a process of its own, as the bus has one.
func (l *lab) serve(ctx context.Context, path string) (end func(), err error) {
	server := exec.CommandContext(ctx, l.bin("init"), "sysgenid", "serve", path)
	out, err := server.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := server.Start(); err != nil {
		return nil, err
	}
	end = func() {
		_ = server.Process.Signal(syscall.SIGTERM)
		_ = server.Wait()
	}
	// It says how it serves, once it does.
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		end()
		return nil, fmt.Errorf("no device was served: %q: %w", line, err)
	}
	return end, nil
}

func (l *lab) deviceCrowd(ctx context.Context, n int) (crowd, error) {
	path := filepath.Join(l.dir, fmt.Sprintf("sysgenid%d", n))
	end, err := l.serve(ctx, path)
	if err != nil {
		return crowd{}, err
	}
	overseer, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return crowd{}, err
	}
	release, err := watchers(ctx, "device", path, n)
	if err != nil {
		return crowd{}, err
	}
	return crowd{
		round: func() error {
			if err := unix.IoctlSetInt(int(overseer.Fd()), uint(sysgenid.TriggerGenUpdate), 0); err != nil {
				return fmt.Errorf("bump: %w", err)
			}
			// Waiting ends at once while the caller itself is outdated, tracked or not.
			now := make([]byte, 4)
			if _, err := unix.Read(int(overseer.Fd()), now); err != nil {
				return fmt.Errorf("read: %w", err)
			}
			if _, err := unix.Write(int(overseer.Fd()), now); err != nil {
				return fmt.Errorf("acknowledge: %w", err)
			}
			return unix.IoctlSetInt(int(overseer.Fd()), uint(sysgenid.WaitWatchers), int(time.Minute.Milliseconds()))
		},
		close: func() {
			release()
			overseer.Close()
			end()
		},
	}, nil
}

func (l *lab) busCrowd(ctx context.Context, n int) (crowd, error) {
	path, end, err := l.bus(ctx, n)
	if err != nil {
		return crowd{}, err
	}
	overseer, err := dialBus(path)
	if err != nil {
		return crowd{}, err
	}
	if err := overseer.call(busDaemon, "RequestName", busName, nil); err != nil {
		return crowd{}, err
	}
	release, err := watchers(ctx, "bus", path, n)
	if err != nil {
		return crowd{}, err
	}
	generation := uint32(0)
	return crowd{
		round: func() error {
			generation++
			return overseer.raise(generation, n)
		},
		close: func() {
			release()
			overseer.conn.Close()
			end()
		},
	}, nil
}

// watch answers every signal with a method call.
func (c *busConn) watch() {
	for {
		m, err := c.receive()
		if err != nil {
			return
		}
		if m.kind == busSignal && len(m.body) == 4 {
			if c.call(busName, "Acknowledge", "", m.body) != nil {
				return
			}
		}
	}
}

// raise sends the signal, and replies to n acknowledgements of it.
func (c *busConn) raise(generation uint32, n int) error {
	body := binary.LittleEndian.AppendUint32(nil, generation)
	if err := c.send(busSignal, "", "Changed", "u", 0, body); err != nil {
		return err
	}
	for n > 0 {
		m, err := c.receive()
		if err != nil {
			return err
		}
		if m.kind != busCall || len(m.body) != 4 || binary.LittleEndian.Uint32(m.body) != generation {
			continue
		}
		if err := c.send(busReturn, m.sender, "", "", m.serial, nil); err != nil {
			return err
		}
		n--
	}
	return nil
}

// raiseFiles lets this process have as many descriptors as it may, and returns how many that are.
func raiseFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	limit.Cur = limit.Max
	_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	return int(limit.Cur)
}
