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

// addLayers puts the layers on top of each other, the first one lowest.
func (b *builder) addLayers() error {
	for n, open := range b.spec.Layers {
		r, err := open()
		if err != nil {
			return fmt.Errorf("layer %d: %w", n+1, err)
		}
		l := &layer{b: b, own: map[string]bool{}, number: n + 1}
		if err := errors.Join(l.apply(tar.NewReader(r)), r.Close()); err != nil {
			return fmt.Errorf("layer %d: %w", n+1, err)
		}
	}
	return nil
}

// layer is one tar stream on its way into the tree.
type layer struct {
	b      *builder
	own    map[string]bool // paths of this layer, which its own whiteouts leave alone
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
		if err := l.add(h, r); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

// Whiteouts: OCI image-spec v1.1, layer.md. A file .wh.NAME takes NAME of the layers below away; one with the
// opaque name takes everything that the layers below have in its folder.
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

func (l *layer) add(h *tar.Header, content io.Reader) error {
	name := path.Clean("/" + h.Name) // ".." cannot lead out
	dir, base := path.Split(name)
	if base == opaque {
		return l.hide(dir, false)
	}
	if hidden, ok := strings.CutPrefix(base, whiteout); ok {
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
	l.own[at] = true
	return err
}

// hide removes what layers below have at p, or only what they have below it.
func (l *layer) hide(p string, itself bool) error {
	t := l.b.image.tree
	at, err := t.resolve(p, false)
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for own := range l.own {
		for ; own != "/"; own = path.Dir(own) {
			keep[own] = true // a folder stays if this layer has put something into it
		}
	}
	prefix := strings.TrimSuffix(at, "/") + "/"
	for name := range t.entries {
		if (strings.HasPrefix(name, prefix) || itself && name == at) && name != "/" && !keep[name] {
			delete(t.entries, name)
		}
	}
	return nil
}

// entry returns nil for what no file system needs.
func (l *layer) entry(h *tar.Header, content io.Reader) (*entry, error) {
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
