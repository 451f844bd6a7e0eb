package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"sort"
	"strings"
)

// File types of st_mode, as cpio has them: linux/include/uapi/linux/stat.h.
const (
	modeType    = 0o170000
	modeSocket  = 0o140000
	modeSymlink = 0o120000
	modeRegular = 0o100000
	modeBlock   = 0o060000
	modeDir     = 0o040000
	modeChar    = 0o020000
	modeFIFO    = 0o010000
)

// entry is one thing in the tree.
type entry struct {
	mode         uint32 // type and permissions as in st_mode
	uid, gid     uint32
	major, minor uint32 // of a device node
	link         string // target of a symbolic link
	// The content of a regular file is one of these three, in this order.
	section *io.SectionReader
	source  string // file on the host
	data    []byte
	size    int64             // of source, when it was looked at
	group   string            // entries with the same non-empty group are one file with several names
	xattrs  map[string][]byte // or nil
}

func (e *entry) isDir() bool     { return e.mode&modeType == modeDir }
func (e *entry) isRegular() bool { return e.mode&modeType == modeRegular }

func (e *entry) length() int64 {
	switch {
	case e.section != nil:
		return e.section.Size()
	case e.source != "":
		return e.size
	}
	return int64(len(e.data))
}

// open returns the content, and an error when it is read if the file's length is no longer what it was.
func (e *entry) open() (io.ReadCloser, error) {
	if e.section != nil {
		return io.NopCloser(io.NewSectionReader(e.section, 0, e.section.Size())), nil
	}
	if e.source == "" {
		return io.NopCloser(bytes.NewReader(e.data)), nil
	}
	f, err := os.Open(e.source)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && st.Size() != e.size {
		err = fmt.Errorf("%s changed while the image was built: %d bytes, now %d", e.source, e.size, st.Size())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// tree is the file system to be: absolute clean paths to entries. The root is in it.
type tree struct{ entries map[string]*entry }

func newTree() *tree {
	return &tree{entries: map[string]*entry{"/": {mode: modeDir | 0o755}}}
}

// maxLinks is how many symbolic links one path may lead through; the kernel's MAXSYMLINKS (include/linux/namei.h).
const maxLinks = 40

var errLoop = errors.New("too many symbolic links")

// resolve turns p into the path of the entry that the guest would reach by it, following links in all folders and, if
// last is true, in the last element too. What does not exist is taken as it is written.
func (t *tree) resolve(p string, last bool) (string, error) {
	todo := strings.Split(strings.Trim(path.Clean("/"+p), "/"), "/")
	at := "/"
	for links := 0; len(todo) > 0; {
		next := path.Join(at, todo[0])
		todo = todo[1:]
		e := t.entries[next]
		if e == nil || e.mode&modeType != modeSymlink || (len(todo) == 0 && !last) {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s: %w", p, errLoop)
		}
		// The target's own elements are resolved as well; ".." has already a real folder to go up from.
		target := strings.Split(e.link, "/")
		if path.IsAbs(e.link) {
			at = "/"
		}
		todo = append(slices.DeleteFunc(target, func(s string) bool { return s == "" }), todo...)
	}
	return at, nil
}

// lookup finds what the guest would open as p, or nil.
func (t *tree) lookup(p string) *entry {
	at, err := t.resolve(p, true)
	if err != nil {
		return nil
	}
	return t.entries[at]
}

// put adds e as p, and any folder that is missing above it. An entry that is there already is replaced; a folder
// keeps what is in it if it is replaced by a folder, and loses it otherwise.
func (t *tree) put(p string, e *entry) error {
	at, err := t.resolve(p, false)
	if err != nil {
		return err
	}
	if err := checkName(at, e); err != nil {
		return err
	}
	if at == "/" {
		if !e.isDir() {
			return fmt.Errorf("%s: the root can only be a folder", p)
		}
		e.mode |= 0o755 // a folder made by mktemp is 0700, and as a root would lock every service out
	}
	for dir := path.Dir(at); ; dir = path.Dir(dir) {
		if have := t.entries[dir]; have == nil {
			t.entries[dir] = &entry{mode: modeDir | 0o755}
		} else if !have.isDir() {
			return fmt.Errorf("%s: %s is not a folder", p, dir)
		}
		if dir == "/" {
			break
		}
	}
	if have := t.entries[at]; have != nil && have.isDir() && !e.isDir() {
		t.remove(at)
	}
	t.entries[at] = e
	return nil
}

// Limits of names: NAME_MAX and PATH_MAX with its final zero, linux/include/uapi/linux/limits.h. The kernel passes over
// longer ones of an initramfs without a word (init/initramfs.c, do_header).
const (
	maxName = 255
	maxPath = 4095
)

func checkName(p string, e *entry) error {
	if len(p) > maxPath || len(e.link) > maxPath {
		return fmt.Errorf("%s...: a path of more than %d bytes", p[:min(len(p), 80)], maxPath)
	}
	if strings.Contains(p+e.link, "\x00") {
		return fmt.Errorf("%q: a name with a zero byte", p[:min(len(p), 80)])
	}
	for _, name := range strings.Split(p, "/") {
		if len(name) > maxName {
			return fmt.Errorf("%s...: a name of more than %d bytes", name[:80], maxName)
		}
	}
	if e.mode&modeType == modeSymlink && e.link == "" {
		return fmt.Errorf("%s: a symbolic link to nothing", p)
	}
	return nil
}

// remove takes p, a path as in entries, and everything below it away.
func (t *tree) remove(p string) {
	for name := range t.entries {
		if name == p || strings.HasPrefix(name, strings.TrimSuffix(p, "/")+"/") {
			delete(t.entries, name)
		}
	}
}

// paths lists everything but the root, a folder always before what is in it.
func (t *tree) paths() []string {
	out := make([]string, 0, len(t.entries))
	for p := range t.entries {
		if p != "/" {
			out = append(out, p)
		}
	}
	sort.Strings(out)
	return out
}

// unixMode turns a Go file mode into st_mode.
func unixMode(m fs.FileMode) uint32 {
	out := uint32(m.Perm())
	for _, b := range []struct {
		mode fs.FileMode
		bit  uint32
	}{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}} {
		if m&b.mode != 0 {
			out |= b.bit
		}
	}
	switch {
	case m.IsDir():
		return out | modeDir
	case m&fs.ModeSymlink != 0:
		return out | modeSymlink
	case m&fs.ModeCharDevice != 0:
		return out | modeChar
	case m&fs.ModeDevice != 0:
		return out | modeBlock
	case m&fs.ModeNamedPipe != 0:
		return out | modeFIFO
	case m&fs.ModeSocket != 0:
		return out | modeSocket
	}
	return out | modeRegular
}

// addFile adds one File of a Spec.
func (b *builder) addFile(f File) error {
	if !path.IsAbs(f.Path) {
		return fmt.Errorf("file %q: its path in the image must begin with a slash", f.Path)
	}
	e := &entry{mode: unixMode(f.Mode), uid: f.UID, gid: f.GID, data: f.Data, link: f.Link}
	switch {
	case f.Link != "":
		e.mode = modeSymlink | 0o777
	case f.Source != "" && f.Data == nil:
		if err := e.fromHost(f); err != nil {
			return fmt.Errorf("file %s: %w", f.Path, err)
		}
	case e.isRegular() && f.Mode == 0:
		e.mode |= 0o644
	}
	return b.image.tree.put(f.Path, e)
}

func (e *entry) fromHost(f File) error {
	st, err := os.Stat(f.Source)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is not a plain file; to include a folder, give it as Dir", f.Source)
	}
	if f.Mode == 0 {
		e.mode = unixMode(st.Mode())
	}
	e.source, e.size = f.Source, st.Size()
	return nil
}
