package vmm

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// The parts of the qcow2 format (docs/interop/qcow2.txt) that an empty overlay has: a header with the name
// of its backing file, a refcount table with one block, and an L1 table of zeros, by which every
// cluster is read from the backing file.
const (
	qcow2Magic       = 0x514649fb // "QFI\xfb"
	qcow2Version     = 3
	qcow2Header      = 104
	qcow2ClusterBits = 16
	qcow2Cluster     = 1 << qcow2ClusterBits
	qcow2NameMax     = 1023       // of a backing file's name
	qcow2FormatID    = 0xe2792aca // header extension: format of the backing file
)

// createOverlay makes an empty qcow2 image of the same size as base, which holds what it does not. It must
// not exist; base must stay as it is. No tool is needed, so that clones need nothing but QEMU.
func createOverlay(path string, base Disk) error {
	size, err := base.size()
	if err != nil {
		return err
	}
	backing, err := filepath.Abs(base.Path)
	if err != nil {
		return err
	}
	data, err := overlay(size, backing, base.Format)
	if err != nil {
		return fmt.Errorf("overlay of %s: %w", base.Path, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// overlay renders the whole file: header, refcount table, refcount block, L1 table.
func overlay(size uint64, backing, format string) ([]byte, error) {
	size = (size + 511) &^ 511 // sectors
	// An L1 entry leads to a cluster of 8-byte entries, each for a cluster of data.
	const perEntry = qcow2Cluster / 8 * qcow2Cluster
	l1 := (size + perEntry - 1) / perEntry
	l1Clusters := (l1*8 + qcow2Cluster - 1) / qcow2Cluster
	clusters := 3 + max(l1Clusters, 1)
	extension := (8 + len(format) + 7) &^ 7
	nameAt := qcow2Header + extension + 8
	if len(backing) > qcow2NameMax || clusters > qcow2Cluster/2 {
		return nil, fmt.Errorf("name of %d bytes, size of %d: too large", len(backing), size)
	}
	b := make([]byte, clusters*qcow2Cluster)
	be := binary.BigEndian
	for at, v := range map[int]uint32{0: qcow2Magic, 4: qcow2Version, 16: uint32(len(backing)), 20: qcow2ClusterBits,
		36: uint32(l1), 56: 1 /* clusters of the refcount table */, 96: 4 /* refcounts of 1<<4 bits */, 100: qcow2Header,
		qcow2Header: qcow2FormatID, qcow2Header + 4: uint32(len(format))} {
		be.PutUint32(b[at:], v)
	}
	for at, v := range map[int]uint64{8: uint64(nameAt), 24: size, 40: 3 * qcow2Cluster /* L1 */, 48: qcow2Cluster, /* refcount table */
		qcow2Cluster: 2 * qcow2Cluster} {
		be.PutUint64(b[at:], v)
	}
	copy(b[qcow2Header+8:], format)
	copy(b[nameAt:], backing)
	for i := range clusters {
		be.PutUint16(b[2*qcow2Cluster+2*i:], 1)
	}
	return b, nil
}

// size is what the guest sees, in bytes.
func (d Disk) size() (uint64, error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if d.Format != "qcow2" {
		// Of a block device too.
		n, err := f.Seek(0, io.SeekEnd)
		return uint64(n), err
	}
	var header [32]byte
	if _, err := io.ReadFull(f, header[:]); err != nil {
		return 0, fmt.Errorf("%s: %w", d.Path, err)
	}
	if binary.BigEndian.Uint32(header[:]) != qcow2Magic {
		return 0, fmt.Errorf("%s: not a qcow2 image; is its format raw?", d.Path)
	}
	return binary.BigEndian.Uint64(header[24:]), nil
}

// standsAlone refuses a disk that needs another file: a snapshot could not hold it.
func (d Disk) standsAlone() error {
	if d.Format != "qcow2" {
		return nil
	}
	if _, err := d.size(); err != nil {
		return err
	}
	f, err := os.Open(d.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	var header [16]byte
	if _, err := io.ReadFull(f, header[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(header[8:]) != 0 {
		return fmt.Errorf("it has a backing file; make it whole with qemu-img convert -O qcow2")
	}
	return nil
}
