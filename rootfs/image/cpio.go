package image

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
)

// WriteCPIO writes the image as an initramfs: a newc cpio archive, compressed as one of [Formats] says ("" is zstd).
func (i *Image) WriteCPIO(w io.Writer, format string) error {
	i.warnXattrs()
	buffered := bufio.NewWriterSize(w, 1<<16)
	z, err := compressor(buffered, format)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	// cpio writes header by header: a buffer on this side as well keeps the compressor's blocks large.
	out := bufio.NewWriterSize(z, 1<<16)
	if err := i.writeRecords(cpio.Newc.Writer(out)); err != nil {
		return fmt.Errorf("image: write cpio: %w", err)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("image: write: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("image: write: %w", err)
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("image: write: %w", err)
	}
	return nil
}

// warnXattrs: the newc format has no place for extended attributes.
func (i *Image) warnXattrs() {
	for _, p := range i.tree.paths() {
		for _, name := range sortedKeys(i.tree.entries[p].xattrs) {
			i.Warnings = append(i.Warnings, fmt.Sprintf("%s: attribute %s is lost in an initramfs; use an ext4 or squashfs image to keep it", p, name))
		}
	}
}

func sortedKeys(m map[string][]byte) []string { return slices.Sorted(maps.Keys(m)) }

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// compressor's output depends on its input alone: one thread, no time and no name in the header.
func compressor(w io.Writer, format string) (io.WriteCloser, error) {
	switch format {
	case "none":
		return nopCloser{w}, nil
	case "gzip":
		return gzip.NewWriterLevel(w, gzip.DefaultCompression)
	case "", "zstd":
		// The window must not exceed what the kernel's decompressor takes (ZSTD_WINDOWSIZE_MAX of
		// lib/decompress_unzstd.c, 128 MiB); the default is 8 MiB.
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	}
	return nil, fmt.Errorf("unknown compression %q; use %s", format, strings.Join(Formats, ", "))
}

// writeRecords numbers inodes in the order of paths. Names of one file share a number; its content goes with the last
// of them, as GNU cpio has it and the kernel's init/initramfs.c (maybe_link) accepts.
func (i *Image) writeRecords(w cpio.RecordWriter) error {
	t := i.tree
	paths := t.paths()
	names := map[string]uint64{}
	for _, p := range paths {
		names[t.entries[p].group]++
	}
	inodes, left := map[string]uint64{}, map[string]uint64{}
	for n, p := range paths {
		e := t.entries[p]
		ino, links := uint64(n+1), uint64(1)
		if e.group != "" {
			links = names[e.group]
			if inodes[e.group] == 0 {
				inodes[e.group], left[e.group] = ino, links
			}
			ino = inodes[e.group]
			left[e.group]--
		}
		r, err := record(p, e, left[e.group] == 0)
		if err != nil {
			return err
		}
		r.Ino, r.NLink, r.MTime = ino, links, uint64(i.epoch)
		if err := w.WriteRecord(r); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return cpio.WriteTrailer(w)
}

func record(p string, e *entry, content bool) (cpio.Record, error) {
	name := strings.TrimPrefix(p, "/")
	if name == cpio.Trailer {
		return cpio.Record{}, fmt.Errorf("%s: this name ends a cpio archive; rename the file", p)
	}
	info := cpio.Info{Name: name, Mode: uint64(e.mode), UID: uint64(e.uid), GID: uint64(e.gid), Rmajor: uint64(e.major), Rminor: uint64(e.minor)}
	switch e.mode & modeType {
	case modeSymlink:
		return cpio.StaticRecord([]byte(e.link), info), nil
	case modeRegular:
		// c_filesize is eight hexadecimal digits; linux/Documentation/driver-api/early-userspace/buffer-format.rst.
		if e.length() > math.MaxUint32 {
			return cpio.Record{}, fmt.Errorf("%s: %d bytes: a cpio archive holds files up to 4 GiB; use an ext4 or squashfs image", p, e.length())
		}
		if content && e.length() > 0 {
			info.FileSize = uint64(e.length())
			return cpio.Record{ReaderAt: &lazy{entry: e}, Info: info}, nil
		}
	}
	return cpio.Record{Info: info}, nil
}

// lazy opens an entry at its first read, so that an image of many files does not hold them all open. The cpio writer
// reads from the start to the end and closes.
type lazy struct {
	entry *entry
	r     io.ReadCloser
	at    int64
}

func (l *lazy) ReadAt(p []byte, off int64) (int, error) {
	if l.r == nil {
		r, err := l.entry.open()
		if err != nil {
			return 0, err
		}
		l.r = r
	}
	if off != l.at {
		return 0, fmt.Errorf("read at %d, want %d", off, l.at)
	}
	n, err := io.ReadFull(l.r, p)
	l.at += int64(n)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, err
}

func (l *lazy) Close() error {
	if l.r == nil {
		return nil
	}
	return l.r.Close()
}
