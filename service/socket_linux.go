package service

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// backlog is as large as net.core.somaxconn lets it be by default since Linux 5.4.
const backlog = 4096

// open binds the socket, and listens if it is of a kind that can.
func (s Socket) open(who account) (*os.File, error) {
	network, at, path, err := s.parse()
	if err != nil {
		return nil, err
	}
	var fd int
	if network == "unix" {
		fd, err = openUnix(path, s.Mode, who)
	} else {
		fd, err = openInet(network, at)
	}
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", s.Listen, err)
	}
	return os.NewFile(uintptr(fd), s.Listen), nil
}

func openInet(network string, at netip.AddrPort) (int, error) {
	family, kind := unix.AF_INET6, unix.SOCK_STREAM
	var addr unix.Sockaddr = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	if ip := at.Addr().Unmap(); ip.Is4() {
		family = unix.AF_INET
		addr = &unix.SockaddrInet4{Port: int(at.Port()), Addr: ip.As4()}
	}
	if network == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if kind == unix.SOCK_STREAM {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, addr)
	}
	if err == nil && kind == unix.SOCK_STREAM {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func openUnix(path string, mode uint32, who account) (int, error) {
	if st, err := os.Lstat(path); err == nil && st.Mode()&os.ModeSocket != 0 {
		_ = os.Remove(path) // left by an earlier life; bind tells if it could not be removed
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if mode == 0 {
		mode = 0o666
	}
	for _, step := range []func() error{
		func() error { return unix.Bind(fd, &unix.SockaddrUnix{Name: path}) },
		func() error { return os.Lchown(path, int(who.uid), int(who.gid)) },
		func() error { return os.Chmod(path, os.FileMode(mode)) },
		func() error { return unix.Listen(fd, backlog) },
	} {
		if err := step(); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// held is a descriptor that we keep for a service: a socket of its Spec, or one that it gave us
// by FDSTORE=1.
type held struct {
	name   string
	file   *os.File
	stored bool
}

func (u *unit) openSockets() error {
	for _, s := range u.spec.Sockets {
		f, err := s.open(u.who)
		if err != nil {
			return err
		}
		name := s.Name
		if name == "" {
			name = "unknown" // what sd_listen_fds_with_names(3) gives for a nameless one
		}
		u.held = append(u.held, held{name: name, file: f})
	}
	return nil
}

func (u *unit) closeSockets() {
	for _, h := range u.held {
		h.file.Close()
	}
	u.held = nil
}

// listenFiles returns what the next process is given from descriptor 3 on, and the environment that says so.
func (u *unit) listenFiles() ([]*os.File, []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var files []*os.File
	var names []string
	for _, h := range u.held {
		files = append(files, h.file)
		names = append(names, h.name)
	}
	if len(files) == 0 {
		return nil, nil
	}
	return files, []string{"LISTEN_FDS=" + strconv.Itoa(len(files)), "LISTEN_FDNAMES=" + strings.Join(names, ":")}
}

// store keeps descriptors that came with FDSTORE=1, up to Spec.FDStore, and closes the others.
func (u *unit) store(name string, fds []int) {
	if name == "" || (Socket{Name: name}).checkName() != nil {
		name = "stored"
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	room := u.spec.FDStore
	for _, h := range u.held {
		if h.stored {
			room--
		}
	}
	for i, fd := range fds {
		if i >= room {
			closeFDs(fds[i:])
			return
		}
		u.held = append(u.held, held{name: name, file: os.NewFile(uintptr(fd), name), stored: true})
	}
}

// unstore drops the stored descriptors of that name, or all stored ones if name is "".
func (u *unit) unstore(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	kept := u.held[:0]
	for _, h := range u.held {
		if h.stored && (name == "" || h.name == name) {
			h.file.Close()
			continue
		}
		kept = append(kept, h)
	}
	u.held = kept
}
