package sysgenid

import (
	"errors"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"rouse/internal/guard"
)

// shelf is a second FUSE connection, whose one file holds the page for
// passthrough mappings of the device where a memfd would be forgeable. Nobody
// can open it by a path: it is mounted nowhere. When a process opens the device,
// the kernel opens the shelf's file with the same flags. Opened for reading it
// is cached, so it maps; opened for writing it is direct, and mmap answers
// ENODEV, unless the opener may trigger generations anyway: a mapping of that
// one could be made writable, and by whom else would it be of use.
//
// A shelf outlives the connections of the device, so that mappings go on after
// one was aborted. If the shelf itself is aborted, both are made anew.
//
// Thus the device itself has no cached pages: its reads block as the driver's
// do, and acknowledgements neither drop the mapped page nor queue for the
// inode's lock, as they do in page-cache mode from Linux 6.9 on.
type shelf struct {
	*link
	server *Server
	page   *os.File // its file, opened for reading: what connections register
	mem    []byte   // a mapping of it, for wakeWord
	ended  chan struct{}
}

// newShelf serves a shelf and opens its file.
func newShelf(s *Server) (*shelf, error) {
	l, root, err := joinDetached(s.options.Device)
	if err != nil {
		return nil, wrap("mount a second FUSE file", err)
	}
	defer unix.Close(root)
	l.bits = pageWakes
	h := &shelf{link: l, server: s, ended: make(chan struct{})}
	go guard.Do(func() {
		defer close(h.ended)
		_ = h.serve(h.dispatch)
	})
	fd, err := unix.Open(s.options.Proc+"/self/fd/"+strconv.Itoa(root), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		_ = h.file.Close()
		<-h.ended
		return nil, wrap("open the second FUSE file", err)
	}
	h.page = os.NewFile(uintptr(fd), "shelf:sysgenid")
	if h.mem, err = unix.Mmap(fd, 0, PageSize, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		h.close()
		return nil, wrap("map the second FUSE file", err)
	}
	return h, nil
}

// joinDetached mounts a FUSE file that has no place in the tree (fsopen, Linux
// 5.2), and returns its root.
func joinDetached(device string) (*link, int, error) {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, -1, err
	}
	root, err := detached(fd)
	if err != nil {
		unix.Close(fd)
		return nil, -1, err
	}
	l, err := join(fd, device)
	if err != nil {
		unix.Close(root)
		return nil, -1, err
	}
	return l, root, nil
}

func detached(fuse int) (root int, err error) {
	fs, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	for _, o := range [...]struct{ key, value string }{
		{"source", "sysgenid-page"},
		{"fd", strconv.Itoa(fuse)},
		{"rootmode", "100666"},
		{"user_id", strconv.Itoa(os.Geteuid())},
		{"group_id", strconv.Itoa(os.Getegid())},
	} {
		if err := unix.FsconfigSetString(fs, o.key, o.value); err != nil {
			return -1, wrap("option "+o.key, err)
		}
	}
	if err := unix.FsconfigSetFlag(fs, "allow_other"); err != nil {
		return -1, wrap("option allow_other", err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

func (h *shelf) close() {
	_ = h.file.Close()
	<-h.ended
	if h.mem != nil {
		wakeWord(h.mem) // to look for the next one
		unmap(h.mem)    // a bump that still wakes on it finds nobody
	}
	_ = h.page.Close()
}

func (h *shelf) dispatch(b []byte) {
	r, err := parseRequest(b)
	if err == nil {
		err = h.handle(r)
	}
	if err != nil {
		h.answer(r.Unique, syscall.EINVAL, nil)
	}
}

// handle answers the few requests that the kernel has for the page.
func (h *shelf) handle(r request) error {
	switch r.Op {
	case opInit:
		in, err := parseInit(r.Body)
		if err != nil || in.Major != fuseMajor {
			return errors.Join(err, errors.New("FUSE of another major version"))
		}
		h.answer(r.Unique, 0, appendInit(nil, in, false))
		return h.store(h.server.core.counter.Load()) // nobody has it open yet, so this cannot wait
	case opOpen:
		return h.open(r)
	case opRead:
		in, err := parseRead(r.Body)
		if err != nil {
			return err
		}
		h.fault(r.Unique, in, &h.server.core.counter)
	case opWrite: // a page that a privileged process changed: forget it
		in, _, err := parseWrite(r.Body)
		if err != nil {
			return err
		}
		h.answer(r.Unique, 0, appendPair(nil, in.Size))
	case opGetattr:
		h.answer(r.Unique, 0, appendAttr(nil, h.server.started))
	case opRelease:
		h.answer(r.Unique, 0, nil)
	case opForget, opBatchForget, opDestroy, opInterrupt:
	default:
		h.answer(r.Unique, syscall.ENOSYS, nil)
	}
	return nil
}

func (h *shelf) open(r request) error {
	flags, err := parseOpen(r.Body)
	if err != nil {
		return err
	}
	out := fopenKeepCache | fopenNoFlush
	if flags&unix.O_ACCMODE != unix.O_RDONLY && !h.server.privileged(r.PID) {
		out |= fopenDirectIO
	}
	h.answer(r.Unique, 0, appendOpen(nil, 0, out, 0))
	return nil
}
