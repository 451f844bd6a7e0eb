package image

import (
	"archive/tar"
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"
)

// tarTypes are the tar types of entries that are neither links nor plain files.
var tarTypes = map[uint32]byte{modeDir: tar.TypeDir, modeChar: tar.TypeChar, modeBlock: tar.TypeBlock, modeFIFO: tar.TypeFifo, modeSymlink: tar.TypeSymlink, modeRegular: tar.TypeReg}

// WriteTar writes the image as an uncompressed tar stream, with owners, device nodes, hard links and extended
// attributes (as PAX records). It is a container image's layer, and what mksquashfs reads.
func (i *Image) WriteTar(w io.Writer) error {
	buffered := bufio.NewWriterSize(w, 1<<16)
	t := tar.NewWriter(buffered)
	first := map[string]string{}
	for _, p := range i.tree.paths() {
		if err := i.writeTarEntry(t, p, i.tree.entries[p], first); err != nil {
			return fmt.Errorf("image: write tar: %s: %w", p, err)
		}
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("image: write tar: %w", err)
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("image: write tar: %w", err)
	}
	return nil
}

func (i *Image) writeTarEntry(t *tar.Writer, p string, e *entry, first map[string]string) error {
	name := strings.TrimPrefix(p, "/")
	h := &tar.Header{Name: name, Typeflag: tarTypes[e.mode&modeType], Mode: int64(e.mode &^ modeType), Uid: int(e.uid), Gid: int(e.gid),
		Linkname: e.link, Devmajor: int64(e.major), Devminor: int64(e.minor), ModTime: time.Unix(i.epoch, 0)}
	if before, ok := first[e.group]; ok {
		h.Typeflag, h.Linkname = tar.TypeLink, before
		return t.WriteHeader(h)
	}
	if e.group != "" {
		first[e.group] = name
	}
	for k, v := range e.xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{} // written in sorted order by the tar package
		}
		h.PAXRecords[paxXattr+k] = string(v)
	}
	if !e.isRegular() {
		if e.isDir() {
			h.Name += "/"
		}
		return t.WriteHeader(h)
	}
	h.Size = e.length()
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	return copyContent(t, e)
}

func copyContent(w io.Writer, e *entry) error {
	r, err := e.open()
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(w, r)
	if err == nil && n != e.length() {
		err = fmt.Errorf("it changed while the image was built: %d bytes, now %d", e.length(), n)
	}
	return err
}
