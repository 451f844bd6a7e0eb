package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Disk says how a disk image is made.
type Disk struct {
	Format string // ext4 or squashfs
	// Free is how many bytes an ext4 file system has beside its content; 0 is 64 MiB. squashfs is read-only.
	Free  int64
	Label string // of an ext4 file system, up to 16 bytes; "" is "rouse"
}

// WriteDisk writes the image as a file system to the file name, which appears only when it is whole. It needs the
// format's own tools (e2fsprogs, or squashfs-tools 4.5 and later) but no root: owners, devices and attributes
// are written by name. /sbin/init is /init, so that the kernel finds it on a disk.
func (i *Image) WriteDisk(ctx context.Context, name string, d Disk) error {
	writer := map[string]func(context.Context, string, Disk) error{"ext4": i.ext4, "squashfs": i.squashfs}[d.Format]
	if writer == nil {
		return fmt.Errorf("image: unknown disk format %q; use ext4 or squashfs", d.Format)
	}
	partial := name + ".partial"
	err := os.RemoveAll(partial)
	if err == nil {
		err = writer(ctx, partial, d)
	}
	if err == nil {
		err = os.Rename(partial, name)
	}
	if err != nil {
		return fmt.Errorf("image: write %s: %w", name, errors.Join(err, os.RemoveAll(partial)))
	}
	return nil
}

// tool runs a program of package; its error carries what it said.
func (i *Image) tool(ctx context.Context, c *exec.Cmd, debian string) (string, error) {
	var said bytes.Buffer
	c.Stderr = &said
	// mke2fs's own configuration file would make the result depend on the host; time is the image's.
	// A time of 0 means "now" to libext2fs (lib/ext2fs/initialize.c).
	// sqfstar refuses its options for times beside SOURCE_DATE_EPOCH, which says the same.
	c.Env = slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "SOURCE_DATE_EPOCH=") })
	c.Env = append(c.Env, "MKE2FS_CONFIG=/dev/null", "LC_ALL=C", "TZ=UTC", "E2FSPROGS_FAKE_TIME="+strconv.FormatInt(max(i.epoch, 1), 10))
	err := c.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%w; install %s", err, debian)
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(c.Path), err, strings.TrimSpace(said.String()))
	}
	return said.String(), nil
}

func (i *Image) squashfs(ctx context.Context, file string, _ Disk) error {
	epoch := strconv.FormatInt(i.epoch, 10)
	root := i.tree.entries["/"]
	// gzip is what every kernel with squashfs can read.
	c := exec.CommandContext(ctx, "sqfstar", "-quiet", "-no-progress", "-exit-on-error", "-reproducible", "-comp", "gzip", "-mkfs-time", epoch,
		// Not -root-time: sqfstar 4.5.1 takes it and gives the root the time of day.
		"-all-time", epoch,
		"-root-mode", strconv.FormatUint(uint64(root.mode&0o7777), 8), "-root-uid", fmt.Sprint(root.uid), "-root-gid", fmt.Sprint(root.gid), file)
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	c.Stdin = r
	written := make(chan error, 1)
	go func() { written <- errors.Join(i.WriteTar(w), w.Close()) }()
	_, err = i.tool(ctx, c, "squashfs-tools")
	r.Close() // ends the writer if the tool has not read to the end
	if werr := <-written; err == nil {
		err = werr
	}
	return err
}

const blockSize = 4096

// ext4Features are those of Debian 12's mke2fs -t ext4, written down so that the result does not depend on the host.
// orphan_file (1.47) is left out: kernels before 5.15 refuse it.
const ext4Features = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum"

func (i *Image) ext4(ctx context.Context, file string, d Disk) error {
	if d.Free == 0 {
		d.Free = 64 << 20
	}
	if d.Label == "" {
		d.Label = "rouse"
	}
	inodes, size := i.ext4Size()
	id := i.uuid()
	mke2fs := exec.CommandContext(ctx, findTool("mke2fs"), "-q", "-F", "-b", strconv.Itoa(blockSize), "-I", "256", "-m", "0", "-O", ext4Features,
		"-E", "hash_seed="+id+",lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0", "-U", id, "-L", d.Label, "-N", strconv.FormatInt(inodes, 10),
		file, strconv.FormatInt((size+d.Free)/1024, 10)+"k")
	if _, err := i.tool(ctx, mke2fs, "e2fsprogs"); err != nil {
		return err
	}
	return i.fillExt4(ctx, file)
}

// findTool looks where the tools of root live too: a user's PATH has no sbin.
func findTool(name string) string {
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		p := filepath.Join(dir, name)
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return name
}

// ext4Size is how many inodes and bytes the content needs, the file system's own structures included.
func (i *Image) ext4Size() (inodes, bytes int64) {
	for _, e := range i.tree.entries {
		inodes++
		bytes += (e.length() + blockSize - 1) / blockSize * blockSize
		if e.isDir() {
			bytes += blockSize
		}
	}
	inodes += 64 + inodes/4
	// inode table and extent blocks; group descriptors with their reserve, bitmaps; the journal.
	return inodes, bytes + bytes/64 + inodes*(256+blockSize/16) + 8<<20 + 32<<20
}

// uuid is made of names, modes and sizes, so that the same image has the same one.
func (i *Image) uuid() string {
	h := sha256.New()
	for _, p := range i.tree.paths() {
		e := i.tree.entries[p]
		fmt.Fprintf(h, "%q %o %d %d %d\n", p, e.mode, e.uid, e.gid, e.length())
	}
	u := h.Sum(nil)[:16]
	u[6], u[8] = u[6]&0x0f|0x50, u[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// fillExt4 writes every entry through debugfs: mke2fs -d would need a copy of the tree on disk with the right owners,
// hence root, and would put the copy's change times into the image.
func (i *Image) fillExt4(ctx context.Context, file string) error {
	dir, err := os.MkdirTemp("", "rouse-ext4-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	script, err := i.debugfsScript(dir)
	if err != nil {
		return err
	}
	commands := filepath.Join(dir, "commands")
	if err := os.WriteFile(commands, []byte(script), 0o600); err != nil {
		return err
	}
	said, err := i.tool(ctx, exec.CommandContext(ctx, findTool("debugfs"), "-w", "-f", commands, file), "e2fsprogs")
	if err != nil {
		return err
	}
	// Its exit status is 0 whatever happens. It greets on the same stream as it complains on.
	for line := range strings.Lines(said) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "debugfs 1.") {
			return fmt.Errorf("debugfs: %s", line)
		}
	}
	return nil
}

func (i *Image) debugfsScript(dir string) (string, error) {
	s := &ext4Script{image: i, dir: dir, first: map[string]string{}, links: map[string]int{}}
	for _, p := range i.tree.paths() {
		s.links[i.tree.entries[p].group]++
	}
	s.attributes("/", i.tree.entries["/"], 0)
	for _, p := range i.tree.paths() {
		if err := s.add(p, i.tree.entries[p]); err != nil {
			return "", fmt.Errorf("%s: %w", p, err)
		}
	}
	return s.b.String(), nil
}

type ext4Script struct {
	b     strings.Builder
	image *Image
	dir   string // temporary
	files int
	at    string // debugfs's working folder
	first map[string]string
	links map[string]int
}

// say writes one command; strings are quoted for libss, which doubles a quote inside quotes.
func (s *ext4Script) say(command string, args ...string) {
	s.b.WriteString(command)
	for _, a := range args {
		s.b.WriteString(` "` + strings.ReplaceAll(a, `"`, `""`) + `"`)
	}
	s.b.WriteByte('\n')
}

func (s *ext4Script) add(p string, e *entry) error {
	if strings.ContainsAny(p+e.link, "\n\r") {
		return errors.New("debugfs cannot write a name with a line break; use squashfs, or rename it")
	}
	if dir := path.Dir(p); dir != s.at {
		s.say("cd", dir)
		s.at = dir
	}
	name := path.Base(p)
	if before, ok := s.first[e.group]; ok {
		s.say("ln", before, name)
		return nil
	}
	have, err := s.create(name, e)
	if err != nil {
		return err
	}
	if e.group != "" {
		s.first[e.group] = p
		// debugfs's ln leaves the count to us.
		s.say("set_inode_field", inodeName(name), "links_count", strconv.Itoa(s.links[e.group]))
	}
	s.attributes(name, e, have)
	return s.xattrs(name, e)
}

// create returns the mode that debugfs gives: folders 0755, links 0777, files the mode of the host's.
func (s *ext4Script) create(name string, e *entry) (mode uint32, err error) {
	switch e.mode & modeType {
	case modeDir:
		s.say("mkdir", name)
		return modeDir | 0o755, nil
	case modeSymlink:
		s.say("symlink", name, e.link)
		return modeSymlink | 0o777, nil
	case modeChar:
		s.say("mknod", name, "c", fmt.Sprint(e.major), fmt.Sprint(e.minor))
	case modeBlock:
		s.say("mknod", name, "b", fmt.Sprint(e.major), fmt.Sprint(e.minor))
	case modeFIFO:
		s.say("mknod", name, "p")
	default:
		source, err := s.hostFile(e)
		if err != nil {
			return 0, err
		}
		s.say("write", source, name)
		st, err := os.Stat(source)
		if err != nil {
			return 0, err
		}
		return unixMode(st.Mode()), nil
	}
	return 0, nil // is set in any case
}

// hostFile is where debugfs can read the content. A file of the host is checked again here, as close to its use as can be.
func (s *ext4Script) hostFile(e *entry) (string, error) {
	if e.section == nil && e.source != "" {
		r, err := e.open()
		if err != nil {
			return "", err
		}
		source, err := filepath.Abs(e.source)
		return source, errors.Join(err, r.Close())
	}
	f, err := s.temporary()
	if err != nil {
		return "", err
	}
	err = copyContent(f, e)
	if err == nil && e.mode&0o7400 == 0o400 { // or it could not be read any more
		err = f.Chmod(fs.FileMode(e.mode & 0o777))
	}
	return f.Name(), errors.Join(err, f.Close())
}

func (s *ext4Script) temporary() (*os.File, error) {
	s.files++
	return os.Create(filepath.Join(s.dir, strconv.Itoa(s.files)))
}

// inodeName keeps debugfs from taking a file named <12> for the inode of that number.
func inodeName(name string) string {
	if name == "/" {
		return name
	}
	return "./" + name
}

// attributes sets what creating has not: each command looks the name up in its folder again, which is most of the work. Times
// are right already, by E2FSPROGS_FAKE_TIME, and owners are 0. have is the mode that creating gave.
func (s *ext4Script) attributes(name string, e *entry, have uint32) {
	name = inodeName(name)
	set := func(field, value string) { s.say("set_inode_field", name, field, value) }
	if e.mode != have {
		set("mode", fmt.Sprintf("0%o", e.mode))
	}
	if e.uid != 0 {
		set("uid", fmt.Sprint(e.uid))
	}
	if e.gid != 0 {
		set("gid", fmt.Sprint(e.gid))
	}
}

func (s *ext4Script) xattrs(name string, e *entry) error {
	name = "./" + name // its option parser would take "-f" for an option
	for _, key := range sortedKeys(e.xattrs) {
		f, err := s.temporary()
		if err != nil {
			return err
		}
		_, err = f.Write(e.xattrs[key])
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		s.say("ea_set -f", f.Name(), name, key)
	}
	return nil
}
