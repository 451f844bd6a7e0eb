package acpi

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"path"
	"strings"

	"rouse/internal/fmt"
)

// What a node's compatible property says: Linux's bindings rng/microsoft,vmgenid.yaml (since 6.10) and
// ptp/amazon,vmclock.yaml, which Firecracker follows on arm64.
const (
	compatibleVMGenID = "microsoft,vmgenid"
	compatibleVMClock = "amazon,vmclock"
)

// A VM generation id has 16 bytes; of vmclock's page at least the fixed part must be there, which ends
// with vm_generation_counter at byte 104 (Linux, include/uapi/linux/vmclock-abi.h).
const (
	sizeVMGenID = 16
	sizeVMClock = 112
)

// Limits of a device tree. Those of large machines have a few thousand nodes, ten deep.
const (
	maxTreeNodes    = 32 << 10
	maxTreeDepth    = 64 // as Linux's own parser has it
	maxTreeProperty = 64 << 10
)

// ErrTree is wrapped by errors about a device tree that cannot be right.
var ErrTree error = fault("damaged device tree")

// treeNode is a node of a device tree, be it from a blob or from files.
type treeNode interface {
	// property returns nil if there is none of that name, an empty slice if it has no value.
	property(name string) ([]byte, error)
	children() ([]treeNode, error)
	name() string
}

// FindVMGenIDTree looks for a VM generation id in a device tree laid out as files, usually
// os.DirFS("/sys/firmware/devicetree/base"). The error wraps [ErrNotFound] if there is none.
func FindVMGenIDTree(fsys fs.FS) (Device, error) {
	return findNode(fileNode{fsys, "."}, compatibleVMGenID, sizeVMGenID)
}

// FindVMGenIDBlob is FindVMGenIDTree for a flattened device tree as in /sys/firmware/fdt.
func FindVMGenIDBlob(blob []byte) (Device, error) {
	return findBlob(blob, compatibleVMGenID, sizeVMGenID)
}

// FindVMClockTree looks for the page of a vmclock device like FindVMGenIDTree does for the id.
func FindVMClockTree(fsys fs.FS) (Device, error) {
	return findNode(fileNode{fsys, "."}, compatibleVMClock, sizeVMClock)
}

// FindVMClockBlob is FindVMClockTree for a flattened device tree.
func FindVMClockBlob(blob []byte) (Device, error) {
	return findBlob(blob, compatibleVMClock, sizeVMClock)
}

func findBlob(blob []byte, compatible string, size uint64) (Device, error) {
	root, err := parseBlob(blob)
	if err != nil {
		return Device{}, err
	}
	return findNode(root, compatible, size)
}

// treeSearch walks a tree in its own order. buses are the nodes from the root to where it is.
type treeSearch struct {
	compatible string
	size       uint64
	buses      []treeNode
	seen       int
	found      Device
	problems   []error
}

func findNode(root treeNode, compatible string, size uint64) (Device, error) {
	s := treeSearch{compatible: compatible, size: size}
	ok, err := s.walk(root)
	switch {
	case err != nil:
		return Device{}, wrap("read device tree", err)
	case ok:
		return s.found, nil
	case len(s.problems) > 0:
		return Device{}, errors.Join(s.problems...)
	}
	return Device{}, fmt.Errorf("%w: no %s node in the device tree", ErrNotFound, compatible)
}

// walk tells whether the node or one below it is what is looked for.
func (s *treeSearch) walk(n treeNode) (bool, error) {
	if s.seen++; s.seen > maxTreeNodes || len(s.buses) > maxTreeDepth {
		return false, fmt.Errorf("%w: too many nodes", ErrTree)
	}
	ok, err := s.matches(n)
	if err != nil {
		return false, err
	}
	if ok {
		if s.found, err = s.device(n); err == nil {
			return true, nil
		}
		if len(s.problems) < maxNotes {
			s.problems = append(s.problems, err)
		}
	}
	below, err := n.children()
	if err != nil {
		return false, err
	}
	s.buses = append(s.buses, n)
	defer func() { s.buses = s.buses[:len(s.buses)-1] }()
	for _, c := range below {
		if ok, err := s.walk(c); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// matches looks for the wanted name among those that a node claims. Linux compares without regard to
// case.
func (s *treeSearch) matches(n treeNode) (bool, error) {
	p, err := n.property("compatible")
	if err != nil || len(s.buses) == 0 {
		return false, err
	}
	for name := range strings.SplitSeq(string(p), "\x00") {
		if strings.EqualFold(name, s.compatible) {
			return true, nil
		}
	}
	return false, nil
}

// device reads where a matching node lies.
func (s *treeSearch) device(n treeNode) (Device, error) {
	d := Device{Path: s.path(n), HID: s.compatible, Table: "device tree"}
	status, err := n.property("status")
	if err != nil {
		return d, err
	}
	if text := strings.TrimRight(string(status), "\x00"); status != nil && text != "okay" && text != "ok" {
		return d, fmt.Errorf("device tree %s: status is %q: %w", d.Path, text, ErrNotFound)
	}
	if d.Address, d.Size, err = s.region(n); err != nil {
		return d, wrap("device tree "+d.Path, err)
	}
	return d, nil
}

func (s *treeSearch) path(n treeNode) string {
	var b strings.Builder
	for _, bus := range s.buses[1:] {
		b.WriteString("/" + bus.name())
	}
	return b.String() + "/" + n.name()
}

// region returns the first address and size of a node's reg, as the CPU sees it.
func (s *treeSearch) region(n treeNode) (addr, size uint64, err error) {
	bus := s.buses[len(s.buses)-1]
	w, err := widths(bus)
	if err != nil {
		return 0, 0, err
	}
	reg, err := n.property("reg")
	if err != nil {
		return 0, 0, err
	}
	if len(reg) < 4*(w.address+w.size) {
		return 0, 0, fmt.Errorf("%w: reg has %d bytes, not %d", ErrTree, len(reg), 4*(w.address+w.size))
	}
	addr, size = cells(reg, w.address), cells(reg[4*w.address:], w.size)
	if size < s.size {
		return 0, 0, fmt.Errorf("%w: reg is for %d bytes, not %d", ErrTree, size, s.size)
	}
	if addr, err = s.translate(addr, size); err != nil {
		return 0, 0, err
	}
	if addr == 0 || addr+size < addr {
		return 0, 0, fmt.Errorf("%w: %#x is no address", ErrTree, addr)
	}
	return addr, size, nil
}

// translate takes an address from the innermost bus to the root's view, which is the CPU's
// (Devicetree Specification 0.4, 2.3.8).
func (s *treeSearch) translate(addr, size uint64) (uint64, error) {
	for i := len(s.buses) - 1; i > 0; i-- {
		inner, err := widths(s.buses[i])
		if err != nil {
			return 0, err
		}
		outer, err := widths(s.buses[i-1])
		if err != nil {
			return 0, err
		}
		ranges, err := s.buses[i].property("ranges")
		switch {
		case err != nil:
			return 0, err
		case ranges == nil:
			return 0, fmt.Errorf("%w: %s has no ranges, so the CPU does not see it", ErrTree, s.buses[i].name())
		case len(ranges) == 0: // one to one
			continue
		}
		if addr, err = mapped(ranges, inner, outer, addr, size); err != nil {
			return 0, wrap(s.buses[i].name(), err)
		}
	}
	return addr, nil
}

// mapped looks an address up in ranges: rows of an inner address, an outer one, and a size.
func mapped(ranges []byte, inner, outer cellWidths, addr, size uint64) (uint64, error) {
	row := 4 * (inner.address + outer.address + inner.size)
	for ; len(ranges) >= row && row > 0; ranges = ranges[row:] {
		from := cells(ranges, inner.address)
		to := cells(ranges[4*inner.address:], outer.address)
		n := cells(ranges[4*(inner.address+outer.address):], inner.size)
		if addr >= from && addr-from < n && size <= n-(addr-from) {
			return to + (addr - from), nil
		}
	}
	return 0, fmt.Errorf("%w: ranges do not hold %#x", ErrTree, addr)
}

// cellWidths says how many cells of 32 bits addresses and sizes below a node have.
type cellWidths struct{ address, size int }

// widths: without the properties it is two and one (Devicetree Specification 0.4, 2.3.5). Buses with
// three cells, as PCI's, have addresses of another kind.
func widths(n treeNode) (w cellWidths, err error) {
	if w.address, err = cellCount(n, "#address-cells", 2); err == nil {
		w.size, err = cellCount(n, "#size-cells", 1)
	}
	return w, err
}

func cellCount(n treeNode, name string, usual int) (int, error) {
	p, err := n.property(name)
	if err != nil || p == nil {
		return usual, err
	}
	if len(p) != 4 || cells(p, 1) > 2 {
		return 0, fmt.Errorf("%w: %s of %q is % x", ErrTree, name, n.name(), p)
	}
	return int(cells(p, 1)), nil
}

// cells reads up to two big-endian cells.
func cells(p []byte, n int) (v uint64) {
	for i := range n {
		v = v<<32 | uint64(binary.BigEndian.Uint32(p[4*i:]))
	}
	return v
}

// fileNode is a node as a folder whose files are the properties.
type fileNode struct {
	fsys fs.FS
	path string
}

func (n fileNode) name() string { return path.Base(n.path) }

func (n fileNode) property(name string) ([]byte, error) {
	f, err := n.fsys.Open(path.Join(n.path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, err := readAtMost(f, maxTreeProperty)
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", name, n.path, err)
	}
	return p, nil
}

func (n fileNode) children() ([]treeNode, error) {
	entries, err := fs.ReadDir(n.fsys, n.path)
	if err != nil {
		return nil, err
	}
	var all []treeNode
	for _, e := range entries {
		if e.IsDir() {
			all = append(all, fileNode{n.fsys, path.Join(n.path, e.Name())})
		}
	}
	return all, nil
}
