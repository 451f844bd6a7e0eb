package source

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"rouse/rootfs/image"
)

// archive is a tar file with the places of what is in it.
type archive struct {
	file  *os.File
	files map[string]place
}

// place is a file's content, or the name of another one for a link: older docker save writes links between layers.
type place struct {
	offset, size int64
	link         string
}

// maxFiles bounds the files of an archive: a layer or two each of some hundreds.
const maxFiles = 1 << 20

// openArchive looks through the headers of a tar file. A compressed one is unpacked first, into a file without a name; at most limit bytes,
// image.DefaultMaxBytes if that is 0.
func openArchive(name string, limit int64) (*archive, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if f, err = plain(f, limit); err != nil {
		return nil, err
	}
	a := &archive{f, map[string]place{}}
	if err := a.index(); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// plain returns f itself if it is not compressed, and closes it otherwise.
func plain(f *os.File, limit int64) (*os.File, error) {
	magic := make([]byte, 4)
	if n, _ := f.ReadAt(magic, 0); n < len(magic) {
		return nil, errors.Join(errors.New("too short for an archive"), f.Close())
	}
	if string(magic[:2]) != "\x1f\x8b" && string(magic) != "\x28\xb5\x2f\xfd" {
		return f, nil
	}
	defer f.Close()
	if limit <= 0 {
		limit = image.DefaultMaxBytes
	}
	r, err := image.Decompress(f)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	out, err := os.CreateTemp("", "rouse-archive-")
	if err != nil {
		return nil, fmt.Errorf("temporary file: %w", err)
	}
	// Without a name it cannot be left behind, however this process ends.
	err = os.Remove(out.Name())
	if err == nil {
		var n int64
		if n, err = io.Copy(out, io.LimitReader(r, limit+1)); n > limit {
			err = fmt.Errorf("%w: %d bytes", image.ErrTooLarge, limit)
		}
	}
	if err == nil {
		_, err = out.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return out, nil
}

func (a *archive) index() error {
	st, err := a.file.Stat()
	if err != nil {
		return err
	}
	for r := tar.NewReader(a.file); ; {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		// The tar reader takes whole headers and no byte more, so that the file stands where the content begins.
		at, err := a.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		p := place{offset: at, size: h.Size}
		switch {
		case h.Typeflag == tar.TypeSymlink:
			p.link = path.Join(path.Dir(path.Clean("/"+h.Name)), h.Linkname)
		case h.Typeflag == tar.TypeLink:
			p.link = path.Clean("/" + h.Linkname)
		case h.Typeflag != tar.TypeReg || sparse(h):
			continue // what is asked of them says that it is missing
		case at+h.Size > st.Size():
			return fmt.Errorf("read tar: %s: %w", h.Name, io.ErrUnexpectedEOF)
		}
		a.files[path.Clean("/"+h.Name)] = p
		if len(a.files) > maxFiles {
			return fmt.Errorf("%w: more than %d files", image.ErrTooLarge, maxFiles)
		}
	}
}

// sparse files are not stored as they are.
func sparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (a *archive) has(name string) bool {
	_, err := a.section(name)
	return err == nil
}

func (a *archive) section(name string) (*io.SectionReader, error) {
	at := path.Clean("/" + name)
	for range 10 { // links to links there are none; ten is enough to say so
		p, ok := a.files[at]
		if !ok {
			break
		}
		if p.link == "" {
			return io.NewSectionReader(a.file, p.offset, p.size), nil
		}
		at = p.link
	}
	return nil, fmt.Errorf("%s: %w", name, errNotThere)
}

var errNotThere = errors.New("it is not in the archive; is the archive whole?")

func (a *archive) small(name string) ([]byte, error) {
	s, err := a.section(name)
	if err != nil {
		return nil, err
	}
	if s.Size() > maxDocument {
		return nil, fmt.Errorf("%s: %d bytes, more than %d", name, s.Size(), maxDocument)
	}
	return io.ReadAll(s)
}

// open makes the archive a store of an OCI layout's blobs.
func (a *archive) open(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	s, err := a.section(blobPath(d.Digest))
	if err != nil {
		return nil, err
	}
	return io.NopCloser(s), nil
}

func (a *archive) Close() error { return a.file.Close() }
