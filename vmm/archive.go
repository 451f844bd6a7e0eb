package vmm

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// maxManifest bounds what is read into memory of a manifest that comes from elsewhere, in bytes.
const maxManifest = 8 << 20

// Export writes a snapshot as one file: an uncompressed tar archive with the manifest first, so that a reader
// knows each file's size and digest before it comes. The files are verified before.
func Export(ctx context.Context, dir string, w io.Writer) error {
	m, err := ReadManifest(dir)
	if err != nil {
		return err
	}
	if err := m.Verify(ctx, dir); err != nil {
		return err
	}
	t := tar.NewWriter(w)
	for _, name := range append([]string{ManifestFile}, m.Names()...) {
		if err := exportFile(ctx, t, dir, name, m); err != nil {
			return fmt.Errorf("export %s: %w", name, err)
		}
	}
	return t.Close()
}

func exportFile(ctx context.Context, t *tar.Writer, dir, name string, m Manifest) error {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	err = t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: info.Size(), Mode: 0o644, ModTime: m.Made, Format: tar.FormatPAX})
	if err != nil {
		return err
	}
	_, err = io.Copy(t, cancelled{ctx, f})
	return err
}

// Import makes a snapshot folder of what Export wrote, complete or not at all: every file of the manifest is
// there with its digest, and nothing else.
func Import(ctx context.Context, r io.Reader, output string) (m Manifest, err error) {
	t := tar.NewReader(cancelled{ctx, r})
	text, err := importManifest(t)
	if err != nil {
		return m, err
	}
	return Assemble(ctx, text, output, func(dir string, m Manifest) error { return importFiles(t, m, dir) })
}

// Assemble makes a snapshot folder of a manifest's text and of files that fill writes into dir, complete or
// not at all: each file must have its size and digest. The files are there, empty and of their sizes, so that
// holes need not be written.
func Assemble(ctx context.Context, manifest []byte, output string, fill func(dir string, m Manifest) error) (m Manifest, err error) {
	if _, err := os.Lstat(output); err == nil {
		return m, fmt.Errorf("%s: exists; choose another folder or remove it", output)
	}
	if m, err = ParseManifest(manifest); err != nil {
		return m, err
	}
	work, err := newWorkshop(output)
	if err != nil {
		return m, err
	}
	defer work.close()
	for name, f := range m.Files {
		if err := makeEmpty(filepath.Join(work.dir, name), f.Size); err != nil {
			return m, err
		}
	}
	if err := fill(work.dir, m); err != nil {
		return m, err
	}
	if err := m.Verify(ctx, work.dir); err != nil {
		return m, err
	}
	if err := os.WriteFile(filepath.Join(work.dir, ManifestFile), manifest, 0o644); err != nil {
		return m, err
	}
	return m, work.publish(output)
}

// makeEmpty gives nobody else a look: what the guest held in memory is in the files.
func makeEmpty(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

func importManifest(t *tar.Reader) ([]byte, error) {
	h, err := t.Next()
	if err != nil || h.Name != ManifestFile || h.Size > maxManifest {
		return nil, errors.Join(fmt.Errorf("no snapshot: it does not begin with %s; is it a file made by rouse export?", ManifestFile), err)
	}
	return io.ReadAll(t)
}

func importFiles(t *tar.Reader, m Manifest, dir string) error {
	left := map[string]File{}
	for name, f := range m.Files {
		left[name] = f
	}
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		want, ok := left[h.Name]
		if !ok || h.Typeflag != tar.TypeReg || h.Size != want.Size {
			return fmt.Errorf("file %q of %d bytes in the archive: the manifest names no such, or it came before", h.Name, h.Size)
		}
		delete(left, h.Name)
		if err := importFile(t, filepath.Join(dir, h.Name)); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("the archive ends before %v", sortedKeys(left))
	}
	return nil
}

func importFile(r io.Reader, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return WriteSparse(f, 0, r)
}

// WriteSparse copies r into a new file from an offset on and leaves out what is zero: memory that a guest
// never touched takes no space. The file has its size already.
func WriteSparse(f io.WriterAt, at int64, r io.Reader) error {
	buf := make([]byte, 1<<20)
	for {
		n, err := io.ReadFull(r, buf)
		for from := 0; from < n; from += page {
			to := min(from+page, n)
			if allZero(buf[from:to]) {
				continue
			}
			for to < n && !allZero(buf[to:min(to+page, n)]) {
				to = min(to+page, n)
			}
			if _, err := f.WriteAt(buf[from:to], at+int64(from)); err != nil {
				return err
			}
			from = (to - 1) / page * page
		}
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// page is the unit of holes.
const page = 4096

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
