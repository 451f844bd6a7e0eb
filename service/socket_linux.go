package service

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"rouse/internal/definition"
)

// backlog is as large as net.core.somaxconn lets it be by default since Linux 5.4.
const backlog = 4096

// open binds the socket, and listens if it is of a kind that can.
func (s *Socket) open(who *account) (*os.File, error) {
	network, at, path, why := definition.ParseListen(s.Listen)
	if why != "" {
		return nil, wrong("socket", s.Listen, why)
	}
	family, kind := unix.AF_UNIX, unix.SOCK_STREAM
	var addr unix.Sockaddr = &unix.SockaddrUnix{Name: path}
	if network != "unix" {
		family, addr = socketAddress(at.Addr(), int(at.Port()))
	}
	if network == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		f := os.NewFile(uintptr(fd), s.Listen)
		if err = s.bind(fd, addr, kind, path, who); err == nil {
			return f, nil
		}
		f.Close()
	}
	return nil, about("socket", s.Listen, err)
}

func (s *Socket) bind(fd int, addr unix.Sockaddr, kind int, path string, who *account) error {
	if path[0] == '/' {
		return s.bindUnix(fd, addr, path, who)
	}
	if kind == unix.SOCK_DGRAM {
		return unix.Bind(fd, addr)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.Bind(fd, addr); err != nil {
		return err
	}
	return unix.Listen(fd, backlog)
}

func (s *Socket) bindUnix(fd int, addr unix.Sockaddr, path string, who *account) error {
	var st unix.Stat_t
	if unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK {
		_ = unix.Unlink(path) // left by an earlier life; bind tells if it could not be removed
	}
	mode := s.Mode
	if mode == 0 {
		mode = 0o666
	}
	if err := unix.Bind(fd, addr); err != nil {
		return err
	}
	if err := unix.Lchown(path, int(who.uid), int(who.gid)); err != nil {
		return err
	}
	if err := unix.Chmod(path, mode); err != nil {
		return err
	}
	return unix.Listen(fd, backlog)
}

// held is a descriptor that we keep for a service: a socket of its Spec, or one that it gave us
// by FDSTORE=1.
type held struct {
	_      incomparable
	name   string
	file   *os.File
	stored bool
}

func (u *unit) openSockets() error {
	for i := range u.spec.Sockets {
		s := &u.spec.Sockets[i]
		f, err := s.open(&u.who)
		if err != nil {
			return err
		}
		name := s.Name
		setString(&name, "unknown") // what sd_listen_fds_with_names(3) gives for a nameless one
		u.hold(&held{name: name, file: f})
	}
	return nil
}

func (u *unit) hold(h *held) { u.held = append(u.held, h) }

func (u *unit) closeSockets() {
	for _, h := range u.held {
		h.file.Close()
	}
	u.held = nil
}

// listenFiles returns what the next process is given from descriptor 3 on, and the environment that says so.
func (u *unit) listenFiles() ([]*os.File, []string) {
	u.mu.Lock()
	files := make([]*os.File, len(u.held))
	names := ""
	for i, h := range u.held {
		files[i] = h.file
		names += ":" + h.name
	}
	u.mu.Unlock()
	if names == "" {
		return nil, nil
	}
	return files, []string{"LISTEN_FDS=" + strconv.Itoa(len(files)), "LISTEN_FDNAMES=" + names[1:]}
}

// store keeps descriptors that came with FDSTORE=1, up to Spec.FDStore, and closes the others.
func (u *unit) store(name string, fds []int) {
	if name == "" || definition.CheckSocketName(name) != "" {
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
		u.hold(&held{name: name, file: os.NewFile(uintptr(fd), name), stored: true})
	}
}

// unstore drops the stored descriptors of that name, or all stored ones if name is "".
func (u *unit) unstore(name string) {
	u.mu.Lock()
	all := u.held
	u.held = nil
	for _, h := range all {
		if h.stored && (name == "" || h.name == name) {
			h.file.Close()
		} else {
			u.hold(h)
		}
	}
	u.mu.Unlock()
}
