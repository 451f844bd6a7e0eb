package acpi

import (
	"encoding/binary"

	"rouse/internal/fmt"
)

// region is an operation region. Only system memory can be read.
type region struct {
	space  byte
	base   uint64
	length uint64
}

const spaceMemory = 0

// spaceNames are those of ACPI 6.5, 5.5.2.4.
var spaceNames = [...]string{"SystemMemory", "SystemIO", "PCI_Config", "EmbeddedControl", "SMBus", "SystemCMOS",
	"PciBarTarget", "IPMI", "GeneralPurposeIO", "GenericSerialBus", "PCC"}

// field is a part of a region. A nil region is one that cannot be reached at all: an index or bank
// field, or one over a data table.
type field struct {
	region      *region
	bit, length uint64
	access      uint64 // bytes of one access
	update      byte   // what a store does to the bits beside the field
}

const fieldSize = 64

// bufferField is a part of a buffer.
type bufferField struct {
	blob        *blob
	bit, length uint64
	raw         bool // made by CreateField: always read as a buffer
}

var (
	errNoReader error = fault("no reader for physical memory")
	errRegion   error = fault("field lies outside its region")
)

func (m *machine) opRegion(f *frame, a []value) (value, error) {
	r := &region{space: byte(a[1].(uint64)), base: a[2].(uint64), length: a[3].(uint64)}
	_, err := m.create(f, a[0].(namePath), r)
	return nil, err
}

func (m *machine) opDataRegion(f *frame, a []value) (value, error) {
	_, err := m.create(f, a[0].(namePath), &region{space: 0xff})
	return nil, err
}

// opField reads the region's name, the flags and the list of fields.
func (m *machine) opField(f *frame, a []value) (value, error) {
	p, err := f.namePath()
	if err != nil {
		return nil, err
	}
	n, err := m.lookup(f.scope, p)
	if err != nil {
		return nil, err
	}
	if n == nil {
		return nil, &nameError{p, errNotFound}
	}
	r, ok := n.value.(*region)
	if !ok {
		return nil, typeError(n, "a region")
	}
	return nil, m.fieldList(f, int(a[0].(uint64)), r)
}

// opIndexField and opBankField make their fields known by name, so that what refers to them loads;
// to read one would mean to write to the machine.
func (m *machine) opIndexField(f *frame, a []value) (value, error) {
	for range 2 {
		if _, err := f.namePath(); err != nil {
			return nil, err
		}
	}
	return nil, m.fieldList(f, int(a[0].(uint64)), nil)
}

func (m *machine) opBankField(f *frame, a []value) (value, error) {
	end := int(a[0].(uint64))
	for range 2 {
		if _, err := f.namePath(); err != nil {
			return nil, err
		}
	}
	if _, err := m.blockInteger(f, end); err != nil {
		return nil, err
	}
	return nil, m.fieldList(f, end, nil)
}

// fieldList reads the flags and the fields (ACPI 6.5, 20.2.5.2): each is a name and a length in bits, or a gap, or
// a change of the way of access.
func (m *machine) fieldList(f *frame, end int, r *region) error {
	flags, err := f.byte()
	if err != nil {
		return err
	}
	next := field{region: r, access: accessWidth(flags), update: flags >> 5 & 3}
	old := f.end
	defer func() { f.end = old }()
	f.end = end
	for f.pos < end {
		if err := m.fieldElement(f, &next); err != nil {
			return err
		}
	}
	return nil
}

// accessWidth is the number of bytes read at once; any access means single bytes, as in ACPICA.
func accessWidth(flags byte) uint64 {
	switch flags & 15 {
	case 2:
		return 2
	case 3:
		return 4
	case 4:
		return 8
	}
	return 1
}

func (m *machine) fieldElement(f *frame, next *field) error {
	if err := m.step(1); err != nil {
		return err
	}
	c, err := f.byte()
	if err != nil {
		return err
	}
	switch c {
	case 0: // a gap
		n, err := f.packageLength()
		next.bit += uint64(n)
		return err
	case 1: // access type and attribute
		p, err := f.bytes(2)
		if err == nil {
			next.access = accessWidth(p[0])
		}
		return err
	case 3: // the same with a length
		_, err := f.bytes(3)
		return err
	case 2: // a connection, which matters to serial buses only
		return m.connection(f)
	}
	f.pos--
	return m.namedField(f, next)
}

func (m *machine) connection(f *frame) error {
	if c, err := f.peek(); err == nil && isName(c) {
		_, err := f.namePath()
		return err
	}
	return m.skip(f)
}

func (m *machine) namedField(f *frame, next *field) error {
	name, err := f.segments(1)
	if err != nil {
		return err
	}
	n, err := f.packageLength()
	if err != nil {
		return err
	}
	next.length = uint64(n)
	unit := *next
	next.bit += next.length
	if err := m.alloc(fieldSize); err != nil {
		return err
	}
	_, err = m.create(f, namePath{segments: name}, &unit)
	return err
}

// span returns the bytes that reading u touches, as whole accesses, and where u begins in them.
func (m *machine) span(u *field) (addr, size, shift uint64, err error) {
	switch {
	case u.region == nil:
		return 0, 0, 0, fmt.Errorf("indexed, banked or table field: %w", errUnsupported)
	case u.region.space != spaceMemory:
		return 0, 0, 0, fmt.Errorf("%s region: %w", spaceName(u.region.space), errUnsupported)
	}
	start := u.bit / 8 / u.access * u.access
	end := (u.bit + u.length + 7) / 8
	end = (end + u.access - 1) / u.access * u.access
	if end > u.region.length || u.region.base+end < u.region.base {
		return 0, 0, 0, errRegion
	}
	return u.region.base + start, end - start, u.bit - start*8, nil
}

func spaceName(space byte) string {
	if int(space) < len(spaceNames) {
		return spaceNames[space]
	}
	return fmt.Sprintf("space %#02x", space)
}

// readField reads memory through the reader. A field no wider than an integer is one; a wider one is
// a buffer.
func (m *machine) readField(u *field) (value, error) {
	addr, size, shift, err := m.span(u)
	if err != nil {
		return nil, err
	}
	raw, err := m.readMemory(addr, size)
	if err != nil {
		return nil, err
	}
	return m.extracted(raw.data, shift, u.length, false)
}

// extracted makes a value of some bits.
func (m *machine) extracted(raw []byte, shift, length uint64, buffer bool) (value, error) {
	if err := m.step(int(length / 8)); err != nil {
		return nil, err
	}
	out, err := m.zeros((length + 7) / 8)
	if err != nil {
		return nil, err
	}
	moveBits(out.data, 0, raw, shift, length)
	if buffer || length > uint64(m.width()) {
		return out, nil
	}
	return little(out.data), nil
}

// readMemory reads size bytes and lays over them what this evaluation stored.
func (m *machine) readMemory(addr, size uint64) (*blob, error) {
	b, err := m.zeros(size)
	if err != nil {
		return nil, err
	}
	if err := m.step(int(size)); err != nil {
		return nil, err
	}
	missing := 0
	for i := range b.data {
		if _, ok := m.memory[addr+uint64(i)]; !ok {
			missing++
		}
	}
	if missing > 0 {
		if m.read == nil {
			return nil, errNoReader
		}
		if err := m.read(addr, b.data); err != nil {
			return nil, fmt.Errorf("read %d bytes at %#x: %w", size, addr, err)
		}
	}
	for i := range b.data {
		if v, ok := m.memory[addr+uint64(i)]; ok {
			b.data[i] = v
		}
	}
	return b, nil
}

// writeField keeps what would be written: later reads see it, the machine does not.
func (m *machine) writeField(u *field, v value) error {
	addr, size, shift, err := m.span(u)
	if err != nil {
		return err
	}
	data, err := m.fieldData(v)
	if err != nil {
		return err
	}
	raw, err := m.beside(u, addr, size)
	if err != nil {
		return err
	}
	if err := m.alloc(48 * int(size)); err != nil {
		return err
	}
	if err := m.step(int(size)); err != nil {
		return err
	}
	fillBits(raw.data, shift, u.length, data)
	if m.memory == nil {
		m.memory = map[uint64]byte{}
	}
	for i, c := range raw.data {
		m.memory[addr+uint64(i)] = c
	}
	return nil
}

// beside returns the bytes around a field that a store goes to, by the field's update rule.
func (m *machine) beside(u *field, addr, size uint64) (*blob, error) {
	if u.update == 0 && u.length != size*8 {
		return m.readMemory(addr, size)
	}
	b, err := m.zeros(size)
	if err == nil && u.update == 1 {
		for i := range b.data {
			b.data[i] = 0xff
		}
	}
	return b, err
}

func isField(v value) bool {
	k := kindOf(v)
	return k == kindField || k == kindBufferField
}

// fieldData returns the bytes of a value that is stored into a field: eight of an integer, whatever
// its width; a string counts without its NUL.
func (m *machine) fieldData(v value) ([]byte, error) {
	switch v := v.(type) {
	case *blob:
		return v.data, nil
	case uint64:
		return binary.LittleEndian.AppendUint64(nil, v), nil
	}
	return nil, typeError(v, "an integer, string or buffer")
}

// moveBits copies n bits between buffers that are long enough.
func moveBits(dst []byte, to uint64, src []byte, from, n uint64) {
	if to%8 == 0 && from%8 == 0 && n%8 == 0 {
		copy(dst[to/8:(to+n)/8], src[from/8:(from+n)/8])
		return
	}
	for i := range n {
		bit := src[(from+i)/8] >> ((from + i) % 8) & 1
		at, mask := (to+i)/8, byte(1)<<((to+i)%8)
		dst[at] &^= mask
		if bit != 0 {
			dst[at] |= mask
		}
	}
}

// fillBits writes data into n bits of dst, zeros behind its end.
func fillBits(dst []byte, to, n uint64, data []byte) {
	have := min(n, uint64(len(data))*8)
	moveBits(dst, to, data, 0, have)
	for i := have; i < n; i++ {
		dst[(to+i)/8] &^= 1 << ((to + i) % 8)
	}
}

func (m *machine) opCreateBit(f *frame, a []value) (value, error) {
	return m.newBufferField(f, a[0], a[1].(uint64), 1, a[2].(namePath), false)
}

// cut makes an integer out of a buffer, whose place is counted in bytes: CreateDWordField, CreateWordField,
// CreateByteField and CreateQWordField.
func (m *machine) cut(code uint16, f *frame, a []value) (value, error) {
	length := uint64(32)
	switch code {
	case 0x8b:
		length = 16
	case 0x8c:
		length = 8
	case 0x8f:
		length = 64
	}
	at := min(a[1].(uint64), 1<<60) // beyond any buffer, and no overflow
	return m.newBufferField(f, a[0], at*8, length, a[2].(namePath), false)
}

func (m *machine) opCreateField(f *frame, a []value) (value, error) {
	return m.newBufferField(f, a[0], a[1].(uint64), a[2].(uint64), a[3].(namePath), true)
}

func (m *machine) newBufferField(f *frame, source value, at, length uint64, p namePath, raw bool) (value, error) {
	b, ok := source.(*blob)
	if !ok || b.text {
		return nil, typeError(source, "a buffer")
	}
	size := uint64(len(b.data)) * 8
	if length == 0 || at > size || length > size-at {
		return nil, errIndex
	}
	if err := m.alloc(fieldSize); err != nil {
		return nil, err
	}
	_, err := m.create(f, p, &bufferField{blob: b, bit: at, length: length, raw: raw})
	return nil, err
}

func (m *machine) readBufferField(u *bufferField) (value, error) {
	if u.bit+u.length > uint64(len(u.blob.data))*8 {
		return nil, errIndex
	}
	return m.extracted(u.blob.data, u.bit, u.length, u.raw)
}

func (m *machine) writeBufferField(u *bufferField, v value) error {
	if u.bit+u.length > uint64(len(u.blob.data))*8 {
		return errIndex
	}
	data, err := m.fieldData(v)
	if err != nil {
		return err
	}
	if err := m.step(int(u.length / 8)); err != nil {
		return err
	}
	fillBits(u.blob.data, u.bit, u.length, data)
	return nil
}
