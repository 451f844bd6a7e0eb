package service

import (
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"rouse/internal/guard"
)

// notifier is the socket at which one service may speak sd_notify. Each service has its own, in
// a folder that only its user can enter: a message there comes from that user even when its sender has
// ended before we look, as a shell script's systemd-notify does.
type notifier struct {
	path string
	file *os.File

	mu    sync.Mutex
	marks []chan struct{} // of mark, the oldest first
}

// maxFDs is SCM_MAX_FD of include/net/scm.h: most descriptors that one message can carry.
const maxFDs = 253

func listenNotify(dir string, a *account) (*notifier, error) {
	n := &notifier{path: dir + "/notify"}
	if err := n.listen(dir, a); err != nil {
		if n.file != nil {
			n.file.Close()
		}
		return nil, about("notify socket", n.path, err)
	}
	return n, nil
}

func (n *notifier) listen(dir string, a *account) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return err
	}
	if err := unix.Mkdir(dir, 0o700); err != nil && err != unix.EEXIST {
		return err
	}
	if err := unix.Unlink(n.path); err != nil && err != unix.ENOENT {
		return err
	}
	fd, err := bindNotify(n.path)
	if err != nil {
		return err
	}
	n.file = os.NewFile(uintptr(fd), n.path)
	if err := unix.Lchown(n.path, int(a.uid), int(a.gid)); err != nil {
		return err
	}
	return unix.Lchown(dir, int(a.uid), int(a.gid))
}

func bindNotify(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	// Credentials are attached by the kernel from the sender's at the time of sending, so set
	// this before anybody can know the path.
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (n *notifier) close() {
	n.file.Close()
	os.RemoveAll(filepath.Dir(n.path))
}

// serve hands every message and its sender to deliver until the socket is closed. Descriptors that
// came with it belong to deliver.
func (n *notifier) serve(deliver func(pid int, m message, fds []int)) {
	raw, err := n.file.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 4096)
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*maxFDs))
	for {
		var size, oobn, flags int
		var rerr error
		err := raw.Read(func(fd uintptr) bool {
			size, oobn, flags, _, rerr = unix.Recvmsg(int(fd), buf, oob, unix.MSG_CMSG_CLOEXEC)
			return rerr != unix.EAGAIN
		})
		if err != nil || rerr != nil && rerr != unix.EINTR {
			return
		}
		pid, fds := parseControl(oob[:oobn])
		if rerr != nil || pid == 0 || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
			closeFDs(fds)
			continue
		}
		if pid == os.Getpid() {
			n.reached()
			continue
		}
		deliver(pid, parseMessage(buf[:size]), fds)
	}
}

// mark puts a message of ours at the end of the queue; the channel is closed once all before it were delivered,
// or at once if that cannot be done.
func (n *notifier) mark() <-chan struct{} {
	ch := make(chan struct{})
	n.mu.Lock()
	n.marks = append(n.marks, ch)
	n.mu.Unlock()
	go guard.Do(func() { // a full queue (net.unix.max_dgram_qlen) makes sendto wait
		if err := sendTo(n.path, ""); err != nil {
			n.reached()
		}
	})
	return ch
}

func (n *notifier) reached() {
	n.mu.Lock()
	if len(n.marks) > 0 {
		close(n.marks[0])
		n.marks = n.marks[1:]
	}
	n.mu.Unlock()
}

// sendTo sends one datagram to a unix socket. A queue that is full is waited for, but not for ever.
func sendTo(path, text string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(catchUpTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return err
	}
	return unix.Sendto(fd, []byte(text), 0, &unix.SockaddrUnix{Name: path})
}

func parseControl(oob []byte) (pid int, fds []int) {
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, nil
	}
	for i := range cmsgs {
		if cred, err := unix.ParseUnixCredentials(&cmsgs[i]); err == nil {
			pid = int(cred.Pid)
		} else if got, err := unix.ParseUnixRights(&cmsgs[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return pid, fds
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
