package control

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// FindSerial gives the device of the virtio-serial port called name. It asks sysfs, as /dev/virtio-ports
// is udev's work. The error matches fs.ErrNotExist if there is no such port (yet).
func FindSerial(name string) (path string, err error) {
	return findSerial("/sys/class/virtio-ports", "/dev", name)
}

func findSerial(class, dev, name string) (string, error) {
	ports, err := os.ReadDir(class)
	if err != nil {
		return "", fmt.Errorf("find virtio port %s: %w (module virtio_console)", name, err)
	}
	for _, p := range ports {
		got, err := os.ReadFile(filepath.Join(class, p.Name(), "name"))
		if err == nil && strings.TrimSpace(string(got)) == name {
			return filepath.Join(dev, p.Name()), nil
		}
	}
	return "", fmt.Errorf("find virtio port %s: %w", name, fs.ErrNotExist)
}

// ServeSerial serves the port at path, or the guest agent's port if path is "", until ctx ends. A port that
// is missing, busy or unplugged is tried again, every two seconds at most.
func (s *Server) ServeSerial(ctx context.Context, path string) error {
	var told string
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		err := s.servePort(ctx, path)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			wait, told = 50*time.Millisecond, ""
		} else if err.Error() != told {
			told = err.Error()
			s.o.Log("control: serial port: %v; trying again", err)
		}
		if !pause(ctx, wait) {
			return nil
		}
	}
}

// servePort serves one opening of the port. nil means that it was served and went away.
func (s *Server) servePort(ctx context.Context, path string) error {
	if path == "" {
		var err error
		if path, err = FindSerial(PortName); err != nil {
			return err
		}
	}
	p, err := openPort(path)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { p.Close() })
	defer stop()
	defer p.Close()
	if err := s.serve(ctx, p, true); ctx.Err() == nil {
		s.o.Log("control: serial port %s: %v; reopening", path, err)
	}
	return nil
}

// port is an open serial port. Its reads park on edges of the runtime's poller: while no host is connected
// the kernel answers every read with 0 and every poll with POLLIN|POLLHUP (port_fops_read and
// port_fops_poll, drivers/char/virtio_console.c, Linux 6.12), so that a level-triggered loop would
// spin. A connecting host and arriving data both wake the port's wait queue, which is an edge.
type port struct {
	*os.File
	raw interface {
		Read(func(fd uintptr) bool) error
	}
	tty  bool // an emulated UART: its end of file is its end
	gone bool // told that the host is disconnected
}

func openPort(path string) (*port, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if err := f.SetDeadline(time.Time{}); err != nil {
		f.Close()
		return nil, fmt.Errorf("poll %s: %w", path, err)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	tty, err := rawMode(raw)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("raw mode %s: %w", path, err)
	}
	return &port{File: f, raw: raw, tty: tty}, nil
}

// Read waits for data. It gives errHostGone once whenever the host has gone, then waits for the next.
func (p *port) Read(b []byte) (n int, err error) {
	var readErr error
	err = p.raw.Read(func(fd uintptr) bool {
		n, readErr = ignoringEINTR(func() (int, error) { return unix.Read(int(fd), b) })
		switch {
		case readErr == unix.EAGAIN:
			return false
		case readErr == nil && n == 0 && p.tty:
			readErr = io.EOF
		case readErr == nil && n == 0 && !p.gone:
			p.gone = true
			readErr = errHostGone
		case readErr == nil && n == 0:
			return false
		case n > 0:
			p.gone = false
		}
		return true
	})
	return max(n, 0), errors.Join(err, readErr)
}

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// rawMode turns off echo and line editing where the port is a terminal.
func rawMode(raw interface{ Control(func(fd uintptr)) error }) (tty bool, err error) {
	var setErr error
	err = raw.Control(func(fd uintptr) {
		t, getErr := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		if getErr != nil {
			return // not a terminal
		}
		tty = true
		t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
		t.Oflag &^= unix.OPOST
		t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8 | unix.CLOCAL
		setErr = unix.IoctlSetTermios(int(fd), unix.TCSETS, t)
	})
	return tty, errors.Join(err, setErr)
}
