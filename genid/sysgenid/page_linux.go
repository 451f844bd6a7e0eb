package sysgenid

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// page is a mapped page that begins with the counter, and the file behind it.
type page struct {
	file *os.File
	mem  []byte
}

func mapPage(f *os.File) (*page, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, wrap("map "+f.Name(), err)
	}
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&mem[4])), pageWakes)
	return &page{f, mem}, nil
}

func (p *page) word() *uint32    { return (*uint32)(unsafe.Pointer(&p.mem[0])) }
func (p *page) store(gen uint32) { atomic.StoreUint32(p.word(), gen) }
func (p *page) load() uint32     { return atomic.LoadUint32(p.word()) }
func (p *page) close() error     { return errors.Join(unix.Munmap(p.mem), p.file.Close()) }
func (p *page) announce(gen uint32) { // a write(2), for those who wait with inotify
	var b [4]byte
	*(*uint32)(unsafe.Pointer(&b[0])) = gen
	_, _ = p.file.WriteAt(b[:], 0) // best effort: the store has been done already
}

// newMemfd makes the page that passthrough mappings show. It is mapped
// writable once, here, and sealed after that, so that nobody else can. Where the
// kernel does not apply the seal to mappings made through FUSE, passthrough is
// not chosen: see errForgeable.
func newMemfd() (*page, error) {
	fd, err := unix.MemfdCreate("sysgenid", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, wrap("create memfd", err)
	}
	f := os.NewFile(uintptr(fd), "memfd:sysgenid")
	p, err := sealedPage(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return p, nil
}

func sealedPage(f *os.File) (*page, error) {
	if err := f.Truncate(PageSize); err != nil {
		return nil, err
	}
	p, err := mapPage(f)
	if err != nil {
		return nil, err
	}
	seals := unix.F_SEAL_FUTURE_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, wrap("seal "+f.Name(), err)
	}
	return p, nil
}

// baseFile is the plain file under the mount.
type baseFile struct {
	*page
	path    string
	created bool
}

// openBase makes or takes the plain file at path. One that a server left behind
// keeps its counter, which somebody may still have mapped. A dead mount, left
// by a server that was killed, is removed first; a live one is refused.
func openBase(path string) (*baseFile, error) {
	if err := clearDead(path); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	switch {
	case err != nil && !errors.Is(err, unix.ENOENT):
		return nil, wrap("stat "+path, err)
	case err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR:
		return nil, fmt.Errorf("serve %s: %w", path, ErrNative)
	case err == nil && isServed(path, &st):
		return nil, fmt.Errorf("serve %s: another server does: %w", path, unix.EBUSY)
	}
	return makeBase(path, err != nil)
}

// clearDead unmounts what a dead connection left at path. Only statfs is sure to
// ask the server: what stat answers is cached.
func clearDead(path string) error {
	for {
		var fs unix.Statfs_t
		if err := unix.Statfs(path, &fs); !isDead(err) {
			return nil
		}
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return wrap("unmount what a dead server left at "+path, err)
		}
	}
}

// isServed says whether path is the root of a FUSE mount.
func isServed(path string, st *unix.Stat_t) bool {
	var fs unix.Statfs_t
	var parent unix.Stat_t
	if unix.Statfs(path, &fs) != nil || unix.Stat(filepath.Dir(path), &parent) != nil {
		return false
	}
	return fs.Type == unix.FUSE_SUPER_MAGIC && st.Ino == rootNode && st.Dev != parent.Dev
}

func makeBase(path string, created bool) (*baseFile, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o444)
	if err != nil {
		return nil, wrap("create "+path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	p, err := mapBase(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &baseFile{p, path, created}, nil
}

// mapBase makes the file world-readable whatever the umask: AWS-LC reseeds on
// every call if the file is there and cannot be opened.
func mapBase(f *os.File) (*page, error) {
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file: %w", f.Name(), errors.Join(err, unix.EINVAL))
	}
	if err := f.Chmod(0o444); err != nil {
		return nil, err
	}
	if err := f.Truncate(PageSize); err != nil {
		return nil, err
	}
	return mapPage(f)
}

// remove closes the file, and removes it if it was made here.
func (b *baseFile) remove() error {
	err := b.close()
	if b.created {
		err = errors.Join(err, os.Remove(b.path))
	}
	return err
}
