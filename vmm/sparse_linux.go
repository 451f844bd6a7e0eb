package vmm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// copySparse copies the data of a file and leaves its holes holes, complete or not at all. Memory that
// the guest never touched costs nothing.
func copySparse(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(dst.Name()) // gone already if all went well
	defer dst.Close()
	if err := copyData(dst, src); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	if err := dst.Sync(); err != nil {
		return err
	}
	return os.Rename(dst.Name(), to)
}

func copyData(dst, src *os.File) error {
	// A clone of the extents is instant where the file system has it (btrfs, xfs).
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
		return nil
	}
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	for pos := int64(0); ; {
		start, err := src.Seek(pos, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return dst.Truncate(fi.Size())
		}
		if err != nil {
			return err
		}
		if pos, err = src.Seek(start, unix.SEEK_HOLE); err != nil {
			return err
		}
		w := io.NewOffsetWriter(dst, start)
		if _, err := io.Copy(w, io.NewSectionReader(src, start, pos-start)); err != nil {
			return err
		}
	}
}
