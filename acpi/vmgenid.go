package acpi

import (
	"errors"
	"strings"

	"rouse/internal/fmt"
)

// ReadMemory fills p with the physical memory at addr. It is called for fields in system memory that
// a method reads; where nil is given, such a method ends in an error.
type ReadMemory func(addr uint64, p []byte) error

// Device is where a VM generation id was found.
type Device struct {
	Path    string // as `\_SB.VGEN`, or a path in the device tree
	HID     string // the device's _HID or compatible, only for people to read; "" if it has none
	Table   string // the Name of the table that defines it, or "device tree"
	Address uint64 // physical address
	Size    uint64 // bytes there: 16 for a VM generation id
}

// ErrNotFound is wrapped by the error of a search that ended without a device: there is none, or the
// one there is says that it is not present.
var ErrNotFound error = fault("no VM generation id device")

// genCounter is what _CID or _DDN must say, letter case aside (Microsoft, "Virtual Machine Generation
// ID", 2012). The _HID is each hypervisor's own.
const genCounter = "VM_Gen_Counter"

// FindVMGenID loads all tables and returns the first device that is a present VM generation id device
// and whose ADDR gives an address. Tables that are damaged are left out, and the error, if there is
// one, says so.
func FindVMGenID(tables []Table, read ReadMemory) (Device, error) {
	m := newMachine(tables, read)
	return m.findVMGenID(tables)
}

func (m *machine) findVMGenID(tables []Table) (Device, error) {
	var problems []error
	for _, n := range m.devices {
		if !m.isGenCounter(n) {
			continue
		}
		d, err := m.device(n, tables)
		if err == nil {
			return d, nil
		}
		problems = append(problems, err)
		if len(problems) == maxNotes {
			break
		}
	}
	if len(problems) == 0 {
		problems = append(problems, ErrNotFound)
	}
	return Device{}, errors.Join(append(problems, m.notes...)...)
}

// newMachine builds the namespace from the tables, the DSDT first.
func newMachine(tables []Table, read ReadMemory) *machine {
	m := &machine{read: read, nodes: map[nodeKey]*node{}, root: &node{table: -1, value: kindScope}}
	bodies := make([][]byte, len(tables))
	size := 0
	for i, t := range tables {
		body, err := t.body()
		if err != nil && len(m.notes) < maxNotes {
			m.notes = append(m.notes, err)
		}
		bodies[i] = body
		size += len(body)
		// ACPI 6.5, 5.2.11.1: the DSDT's revision decides for all tables.
		m.narrow = m.narrow || err == nil && signature(t.Data) == "DSDT" && t.Data[8] < 2
	}
	m.budget = budget{steps: loadSteps + loadStepsPerByte*size, heap: heapBytes + heapPerByte*size}
	m.stack = make([]value, 0, 6*maxDepth)
	m.predefine()
	for _, dsdt := range []bool{true, false} {
		for i, t := range tables {
			if dsdt == (signature(t.Data) == "DSDT") {
				m.loadTable(i, t.Name, bodies[i])
			}
		}
	}
	m.steps, m.depth = evalSteps, 0
	return m
}

// loadTable runs a table's body. What it defined before an error stays.
func (m *machine) loadTable(i int, name string, body []byte) {
	f := &frame{code: body, end: len(body), scope: m.root, table: i, module: true}
	if err := m.runList(f); err != nil && len(m.notes) < maxNotes {
		m.notes = append(m.notes, wrap("load table "+name, err))
	}
}

// predefine makes the names that every namespace has (ACPI 6.5, 5.3.1 and 5.7).
func (m *machine) predefine() {
	f := &frame{table: -1, module: true}
	for _, p := range []struct {
		name  string
		value value
	}{
		{"_GPE", kindScope}, {"_PR_", kindScope}, {"_SB_", kindDevice}, {"_SI_", kindScope}, {"_TZ_", kindDevice},
		{"_GL_", kindMutex}, {"_REV", uint64(2)},
		{"_OS_", &blob{data: []byte("Microsoft Windows NT"), text: true}},
		{"_OSI", &method{args: 1, native: osi}},
	} {
		m.addNode(f, m.root, segment([]byte(p.name)), p.value) // cannot fail: names differ
	}
}

// osi answers as every operating system does: it is each Windows there was.
func osi(m *machine, args []value) (value, error) {
	b, ok := args[0].(*blob)
	if !ok || !b.text {
		return nil, typeError(args[0], "a string")
	}
	return m.truth(strings.HasPrefix(string(b.data), "Windows ")), nil
}

// under evaluates the object of that name directly below n; nil if there is none.
func (m *machine) under(n *node, name string) (value, error) {
	c := follow(m.child(n, segment([]byte(name))))
	if c == nil {
		return nil, nil
	}
	return m.evaluate(c)
}

// isGenCounter tells whether the _CID or the _DDN of n says VM_Gen_Counter. _CID may be a package.
func (m *machine) isGenCounter(n *node) bool {
	for _, name := range []string{"_CID", "_DDN"} {
		v, err := m.under(n, name)
		if err != nil {
			continue
		}
		if l, ok := v.(*list); ok && name == "_CID" {
			for i := range l.elements {
				if e, err := m.element(l, i); err == nil && sayGenCounter(e) {
					return true
				}
			}
		}
		if sayGenCounter(v) {
			return true
		}
	}
	return false
}

func sayGenCounter(v value) bool {
	b, ok := v.(*blob)
	return ok && b.text && strings.EqualFold(string(b.data), genCounter)
}

// device asks a matching device whether it is there and where its id lies.
func (m *machine) device(n *node, tables []Table) (Device, error) {
	if err := m.initialize(n, n); err != nil {
		return Device{}, err
	}
	c := follow(m.child(n, segment([]byte("ADDR"))))
	if c == nil {
		return Device{}, fmt.Errorf("device %s: ADDR: %w", n.path(), errNotFound)
	}
	v, err := m.evaluate(c)
	if err != nil {
		return Device{}, err
	}
	addr, err := m.address(v)
	if err != nil {
		return Device{}, wrap("evaluate "+c.path(), err)
	}
	return Device{Path: n.path(), HID: m.hid(n), Table: tables[n.table].Name, Address: addr, Size: sizeVMGenID}, nil
}

// initialize makes ready what is around d and then d itself, as an operating system does before it
// uses device n: _STA must say that it is there, then _INI runs, once (ACPI 6.5, 6.5.1). What else is
// in the namespace is not touched: other devices' _INI would read other devices' registers. An _INI
// that fails is passed over, as operating systems do; ADDR shows whether it mattered.
func (m *machine) initialize(n, d *node) error {
	if d.parent != nil {
		if err := m.initialize(n, d.parent); err != nil {
			return err
		}
		if err := m.present(n, d); err != nil {
			return err
		}
	}
	if d.ready {
		return nil
	}
	d.ready = true
	if _, err := m.under(d, "_INI"); errors.Is(err, ErrLimit) {
		return err
	}
	return nil
}

// present evaluates _STA of d, without which it is there. A device is there if it is present or, not
// being present, works (bits 0 and 3; ACPI 6.5, 6.3.7).
func (m *machine) present(n, d *node) error {
	v, err := m.under(d, "_STA")
	if err != nil || v == nil {
		return err
	}
	sta, err := m.toInteger(v)
	if err != nil {
		return fmt.Errorf("evaluate %s._STA: %w", d.path(), err)
	}
	if sta&(1<<0|1<<3) == 0 {
		return fmt.Errorf("device %s is not present (%s._STA is %#x): %w", n.path(), d.path(), sta, ErrNotFound)
	}
	return nil
}

// address reads the package that ADDR gives: the lower and the upper 32 bits. Nothing can lie at
// address 0, and firmware that did not patch its table leaves 0.
func (m *machine) address(v value) (uint64, error) {
	l, ok := v.(*list)
	if !ok {
		return 0, typeError(v, "a package")
	}
	if len(l.elements) != 2 {
		return 0, fmt.Errorf("package has %d elements, not 2", len(l.elements))
	}
	var half [2]uint64
	for i := range half {
		e, err := m.element(l, i)
		if err != nil {
			return 0, fmt.Errorf("element %d: %w", i, err)
		}
		if half[i], ok = e.(uint64); !ok {
			return 0, fmt.Errorf("element %d: %w", i, typeError(e, "an integer"))
		}
	}
	addr := half[0] | half[1]<<32
	if addr == 0 || addr > ^uint64(15) {
		return 0, fmt.Errorf("%#x is no address", addr)
	}
	return addr, nil
}

// hid returns the hardware id for people, "" if there is none that can be read.
func (m *machine) hid(n *node) string {
	v, err := m.under(n, "_HID")
	switch v := v.(type) {
	case uint64:
		return eisaID(v)
	case *blob:
		if err == nil && v.text {
			return string(v.data)
		}
	}
	return ""
}
