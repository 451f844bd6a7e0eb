package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// addDir adds the whole folder Spec.Dir, without following links and without leaving its file system's view: what is
// mounted inside it is included. Owners are kept, except that the building user's own files belong
// to root in the image, so that the same folder gives the same image whoever unpacked it.
func (b *builder) addDir() error {
	if b.spec.Dir == "" {
		return nil
	}
	if st, err := os.Stat(b.spec.Dir); err != nil || !st.IsDir() {
		return fmt.Errorf("folder %s: %w", b.spec.Dir, errors.Join(err, errNotDir(err)))
	}
	root, err := filepath.EvalSymlinks(b.spec.Dir)
	if err != nil {
		return fmt.Errorf("folder %s: %w", b.spec.Dir, err)
	}
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("folder %s: %w", b.spec.Dir, err)
		}
		name := path.Join("/", filepath.ToSlash(strings.TrimPrefix(p, root)))
		return b.addFromDisk(name, p)
	})
}

func errNotDir(err error) error {
	if err == nil {
		return errors.New("not a folder")
	}
	return nil
}

func (b *builder) addFromDisk(name, source string) error {
	var st unix.Stat_t
	if err := unix.Lstat(source, &st); err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	e := &entry{mode: st.Mode, uid: st.Uid, gid: st.Gid}
	if uid := os.Getuid(); uid != 0 && int(st.Uid) == uid {
		e.uid, e.gid = 0, 0
	}
	switch st.Mode & modeType {
	case modeSocket:
		b.warn("%s is a socket: left out", name)
		return nil
	case modeSymlink:
		target, err := os.Readlink(source)
		if err != nil {
			return err
		}
		e.link = target
	case modeChar, modeBlock:
		e.major, e.minor = unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))
	case modeRegular:
		if err := regular(e, source, st); err != nil {
			return err
		}
	}
	if err := b.readXattrs(e, name, source); err != nil {
		return err
	}
	return b.image.tree.put(name, e)
}

func regular(e *entry, source string, st unix.Stat_t) error {
	if err := unix.Access(source, unix.R_OK); err != nil {
		return fmt.Errorf("%s: %w: build as a user who may read it", source, err)
	}
	e.source, e.size = source, st.Size
	if st.Nlink > 1 {
		e.group = fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	}
	return nil
}

// readXattrs reads extended attributes. A file system without them has none.
func (b *builder) readXattrs(e *entry, name, source string) error {
	buf := make([]byte, 64<<10) // XATTR_LIST_MAX and XATTR_SIZE_MAX, include/uapi/linux/limits.h
	n, err := unix.Llistxattr(source, buf)
	if errors.Is(err, unix.ENOTSUP) || n == 0 && err == nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: list attributes: %w", source, err)
	}
	for _, key := range strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(source, key, value)
		if errors.Is(err, syscall.ENODATA) || errors.Is(err, unix.EPERM) {
			b.warn("%s: attribute %s cannot be read: left out", name, key)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: attribute %s: %w", source, key, err)
		}
		if e.xattrs == nil {
			e.xattrs = map[string][]byte{}
		}
		e.xattrs[key] = value[:n]
	}
	return nil
}
