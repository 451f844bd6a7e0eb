package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// Layer opens one uncompressed tar stream: a layer of a container image, or a whole file system. The type is that of
// the Uncompressed method of go-containerregistry's v1.Layer.
type Layer func() (io.ReadCloser, error)

// TarFile is the Layer of a tar file on the host, plain or compressed by gzip or zstd: what `docker export` writes.
func TarFile(name string) Layer {
	return func() (io.ReadCloser, error) {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		r, err := decompressor(f)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
		}
		return &decompressed{r, f}, nil
	}
}

// decompressed closes the decompressor, which has goroutines of its own, and its file.
type decompressed struct {
	io.ReadCloser
	file *os.File
}

func (d *decompressed) Close() error { return errors.Join(d.ReadCloser.Close(), d.file.Close()) }

// decompressor looks at the first bytes: RFC 1952, section 2.3.1; RFC 8878, section 3.1.1.
func decompressor(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 1<<16)
	head, _ := b.Peek(4) // shorter is no tar either; the tar reader will say so
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(b)
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(b)
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(b), nil
}

// Decompress reads a stream that is plain or compressed by gzip or zstd, whichever its first bytes say. Closing it does not
// close r.
func Decompress(r io.Reader) (io.ReadCloser, error) { return decompressor(r) }

// addLayers puts the layers on top of each other, the first one lowest. A stream is read to its very end and not just to
// where its tar ends: whoever gave it may check a digest there.
func (b *builder) addLayers() error {
	bound := b.spec.MaxBytes
	if bound <= 0 {
		bound = DefaultMaxBytes
	}
	left := &bounded{left: bound, bound: bound}
	for n, open := range b.spec.Layers {
		r, err := open()
		if err != nil {
			return fmt.Errorf("layer %d: %w", n+1, err)
		}
		left.r = r
		l := &layer{b: b, own: map[string]bool{}, number: n + 1}
		err = l.apply(tar.NewReader(left))
		if err == nil {
			_, err = io.Copy(io.Discard, left)
		}
		if err := errors.Join(err, r.Close()); err != nil {
			return fmt.Errorf("layer %d: %w", n+1, err)
		}
	}
	return nil
}

// DefaultMaxBytes is Spec.MaxBytes if that is 0: 32 GiB.
const DefaultMaxBytes = 32 << 30

// maxEntries is how many entries layers may have in all. Images of whole distributions have some hundred thousand; each costs
// memory here.
const maxEntries = 4 << 20

// ErrTooLarge is what layers are refused with that are larger than Spec.MaxBytes: a few kilobytes of gzip can hold a
// terabyte.
var ErrTooLarge = errors.New("the layers are larger than allowed")

// bounded reads at most so many bytes of all layers together.
type bounded struct {
	r           io.Reader
	left, bound int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, fmt.Errorf("%w: %d bytes when unpacked", ErrTooLarge, b.bound)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left+1)])
	b.left -= int64(n)
	if b.left < 0 {
		return 0, fmt.Errorf("%w: %d bytes when unpacked", ErrTooLarge, b.bound)
	}
	return n, err
}

// layer is one tar stream on its way into the tree.
type layer struct {
	b      *builder
	own    map[string]bool // paths of this layer with all folders above them, which its own whiteouts leave alone
	number int
}

func (l *layer) apply(r *tar.Reader) error {
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		if l.b.entries++; l.b.entries > maxEntries {
			return fmt.Errorf("%w: more than %d entries", ErrTooLarge, maxEntries)
		}
		if err := l.add(h, r); err != nil {
			return fmt.Errorf("%s: %w", printable(h.Name), err)
		}
	}
}

// printable keeps a name out of the terminal's control that has escape sequences in it, and short.
func printable(name string) string {
	if len(name) > 200 {
		name = name[:200] + "..."
	}
	if q := strconv.Quote(name); q != `"`+name+`"` {
		return q
	}
	return name
}

// Whiteouts: OCI image-spec v1.1, layer.md. A file .wh.NAME takes NAME of the layers below away; one with the
// opaque name takes everything that the layers below have in its folder. Other names with the prefix twice are AUFS's own
// notes (.wh..wh.plnk, .wh..wh.orph), which old images still carry and nobody wants.
const (
	whiteout  = ".wh."
	auxiliary = whiteout + whiteout
	opaque    = auxiliary + ".opq"
)

func (l *layer) add(h *tar.Header, content io.Reader) error {
	name, err := layerPath(h.Name)
	if err != nil {
		return err
	}
	dir, base := path.Split(name)
	if base == opaque {
		return l.hide(dir, false)
	}
	if strings.Contains(name, "/"+auxiliary) {
		return nil
	}
	if hidden, ok := strings.CutPrefix(base, whiteout); ok {
		if hidden == "" || hidden == "." || hidden == ".." {
			return errors.New("a whiteout that names no file")
		}
		return l.hide(path.Join(dir, hidden), true)
	}
	e, err := l.entry(h, content)
	if err != nil || e == nil {
		return err
	}
	if err := l.b.image.tree.put(name, e); err != nil {
		return err
	}
	at, err := l.b.image.tree.resolve(name, false)
	for ; at != "/" && !l.own[at]; at = path.Dir(at) {
		l.own[at] = true
	}
	return err
}

// layerPath is a name of a tar as a path in the image. One from the root is meant in the image: every runtime takes it so. One
// with ".." in it was made to lead out of somewhere, and is refused rather than guessed at.
func layerPath(name string) (string, error) {
	if strings.Contains("/"+name+"/", "/../") {
		return "", errors.New(`its path has ".." in it; such a layer is not unpacked`)
	}
	return path.Clean("/" + name), nil
}

// hide removes what layers below have at p, or only what they have below it.
func (l *layer) hide(p string, itself bool) error {
	t := l.b.image.tree
	at, err := t.resolve(p, false)
	if err != nil {
		return err
	}
	e := t.entries[at]
	if e == nil {
		return nil
	}
	if !e.isDir() { // by far the most: no need to look at all the others
		if itself && !l.own[at] {
			delete(t.entries, at)
		}
		return nil
	}
	prefix := strings.TrimSuffix(at, "/") + "/"
	for name := range t.entries {
		if (strings.HasPrefix(name, prefix) || itself && name == at) && name != "/" && !l.own[name] {
			delete(t.entries, name)
		}
	}
	return nil
}

// entry returns nil for what no file system needs.
func (l *layer) entry(h *tar.Header, content io.Reader) (*entry, error) {
	if err := checkNumbers(h); err != nil {
		return nil, err
	}
	e := &entry{mode: uint32(h.Mode) & 0o7777, uid: uint32(h.Uid), gid: uint32(h.Gid), link: h.Linkname,
		major: uint32(h.Devmajor), minor: uint32(h.Devminor), xattrs: xattrsOf(h)}
	switch h.Typeflag {
	case tar.TypeLink:
		return l.hardLink(h.Linkname)
	case tar.TypeReg, tar.TypeGNUSparse:
		e.mode |= modeRegular
		e.link = ""
		return e, l.b.image.spool(e, content, h.Size)
	case tar.TypeDir:
		e.mode |= modeDir
	case tar.TypeSymlink:
		e.mode = modeSymlink | 0o777
	case tar.TypeChar:
		e.mode |= modeChar
	case tar.TypeBlock:
		e.mode |= modeBlock
	case tar.TypeFifo:
		e.mode |= modeFIFO
	default:
		l.b.warn("%s: tar entry of type %q: left out", h.Name, h.Typeflag)
		return nil, nil
	}
	return e, nil
}

// checkNumbers refuses what would become another number in the image. -1 is no owner: chown(2) reads it as "leave as it is". Devices have
// 12 and 20 bits (MINORBITS, linux/include/linux/kdev_t.h).
func checkNumbers(h *tar.Header) error {
	const maxID = 1<<32 - 2
	switch {
	case h.Uid < 0 || h.Uid > maxID || h.Gid < 0 || h.Gid > maxID:
		return fmt.Errorf("its owner %d:%d is no user and group", h.Uid, h.Gid)
	case h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20:
		return fmt.Errorf("its device number %d:%d is too large", h.Devmajor, h.Devminor)
	}
	return nil
}

// xattrsOf takes extended attributes out of a header's PAX records, where Docker and GNU tar put them.
func xattrsOf(h *tar.Header) map[string][]byte {
	var out map[string][]byte
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, paxXattr); ok {
			if out == nil {
				out = map[string][]byte{}
			}
			out[name] = []byte(v)
		}
	}
	return out
}

const paxXattr = "SCHILY.xattr."

// hardLink is the very entry that the name leads to: what changes later for one name, changes the tree's other not.
func (l *layer) hardLink(target string) (*entry, error) {
	t := l.b.image.tree
	at, err := t.resolve(target, false)
	if err != nil {
		return nil, err
	}
	e := t.entries[at]
	if e == nil || e.isDir() {
		return nil, fmt.Errorf("hard link to %s, which no layer has as a file", target)
	}
	if e.group == "" {
		e.group = "layer " + strconv.Itoa(l.number) + " " + at
	}
	return e, nil
}

// spool keeps a stream's content in one unnamed temporary file: images are larger than memory should be.
func (i *Image) spool(e *entry, r io.Reader, size int64) error {
	if i.spoolFile == nil {
		f, err := os.CreateTemp("", "rouse-image-")
		if err != nil {
			return fmt.Errorf("temporary file: %w", err)
		}
		// Without a name it cannot be left behind, however this process ends.
		if err := unix.Unlink(f.Name()); err != nil {
			return errors.Join(fmt.Errorf("temporary file: %w", err), f.Close())
		}
		i.spoolFile = f
	}
	n, err := io.Copy(i.spoolFile, r)
	if err != nil {
		return fmt.Errorf("temporary file: %w", err)
	}
	if n != size {
		return fmt.Errorf("%d bytes, its header says %d", n, size)
	}
	e.section = io.NewSectionReader(i.spoolFile, i.spoolSize, n)
	i.spoolSize += n
	return nil
}

// Close gives temporary space back. The image cannot be written any more.
func (i *Image) Close() error {
	if i.spoolFile == nil {
		return nil
	}
	return i.spoolFile.Close()
}
