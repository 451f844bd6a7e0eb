package acpi

import (
	"bytes"
)

func (m *machine) opName(f *frame, a []value) (value, error) {
	if a[1] == nil {
		return nil, errUninitialized
	}
	_, err := m.create(f, a[0].(namePath), a[1])
	return nil, err
}

// opAlias: the first name exists, the second is new.
func (m *machine) opAlias(f *frame, a []value) (value, error) {
	n, err := m.lookup(f.scope, a[0].(namePath))
	if err != nil {
		return nil, err
	}
	if n == nil {
		return nil, &nameError{a[0].(namePath), errNotFound}
	}
	_, err = m.create(f, a[1].(namePath), &alias{to: n})
	return nil, err
}

// opScope goes on inside an object that exists.
func (m *machine) opScope(f *frame, a []value) (value, error) {
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
	return nil, m.block(f, int(a[0].(uint64)), n)
}

func (m *machine) opMutex(f *frame, a []value) (value, error) {
	_, err := m.create(f, a[0].(namePath), kindMutex)
	return nil, err
}

func (m *machine) opEvent(f *frame, a []value) (value, error) {
	_, err := m.create(f, a[0].(namePath), kindEvent)
	return nil, err
}

func (m *machine) opProcessor(f *frame, a []value) (value, error) {
	return nil, m.container(f, a, kindProcessor, 6)
}

func (m *machine) opPower(f *frame, a []value) (value, error) {
	return nil, m.container(f, a, kindPower, 3)
}

func (m *machine) opThermal(f *frame, a []value) (value, error) {
	return nil, m.container(f, a, kindThermal, 0)
}

// container makes an object that holds others; skip is the number of bytes between its name and them.
func (m *machine) container(f *frame, a []value, k kind, skip int) error {
	p, err := f.namePath()
	if err != nil {
		return err
	}
	if _, err := f.bytes(skip); err != nil {
		return err
	}
	n, err := m.create(f, p, k)
	if err != nil {
		return err
	}
	return m.block(f, int(a[0].(uint64)), n)
}

// opDevice is a container that is remembered if it is there to stay.
func (m *machine) opDevice(f *frame, a []value) (value, error) {
	p, err := f.namePath()
	if err != nil {
		return nil, err
	}
	n, err := m.create(f, p, kindDevice)
	if err != nil {
		return nil, err
	}
	if f.module {
		if err := m.alloc(8); err != nil {
			return nil, err
		}
		m.devices = append(m.devices, n)
	}
	return nil, m.block(f, int(a[0].(uint64)), n)
}

// opMethod keeps the code for later; the lower three bits of the flags count the arguments.
func (m *machine) opMethod(f *frame, a []value) (value, error) {
	end := int(a[0].(uint64))
	p, err := f.namePath()
	if err != nil {
		return nil, err
	}
	flags, err := f.byte()
	if err != nil {
		return nil, err
	}
	if f.pos > end {
		return nil, errTruncated
	}
	if err := m.alloc(blobSize); err != nil {
		return nil, err
	}
	_, err = m.create(f, p, &method{code: f.code[f.pos:end:end], args: int(flags & 7), table: f.table})
	f.pos = end
	return nil, err
}

// opBuffer: a size, then initial bytes. The larger of both counts.
func (m *machine) opBuffer(f *frame, a []value) (value, error) {
	end := int(a[0].(uint64))
	size, err := m.blockInteger(f, end)
	if err != nil {
		return nil, err
	}
	if f.pos > end {
		return nil, errTruncated
	}
	data := f.code[f.pos:end]
	b, err := m.zeros(max(size, uint64(len(data))))
	if err != nil {
		return nil, err
	}
	copy(b.data, data)
	f.pos = end
	return b, nil
}

// blockInteger evaluates an integer that lies inside a block.
func (m *machine) blockInteger(f *frame, end int) (uint64, error) {
	old := f.end
	f.end = end
	v, err := m.operand(f, 'i')
	f.end = old
	if err != nil {
		return 0, err
	}
	return v.(uint64), nil
}

func (m *machine) opPackage(f *frame, a []value) (value, error) {
	n, err := f.byte()
	if err != nil {
		return nil, err
	}
	return m.elements(f, uint64(n), int(a[0].(uint64)))
}

func (m *machine) opVarPackage(f *frame, a []value) (value, error) {
	end := int(a[0].(uint64))
	n, err := m.blockInteger(f, end)
	if err != nil {
		return nil, err
	}
	return m.elements(f, n, end)
}

// elements reads a package's elements. Those that are not given are nothing, those beyond the count
// are dropped, as in ACPICA.
func (m *machine) elements(f *frame, n uint64, end int) (value, error) {
	if n > heapBytes {
		return nil, errHeap
	}
	l, err := m.newList(int(n))
	if err != nil {
		return nil, err
	}
	old := f.end
	defer func() { f.end = old }()
	f.end = end
	for i := 0; f.pos < end; i++ {
		v, err := m.packageElement(f)
		if err != nil {
			return nil, err
		}
		if i < len(l.elements) {
			l.elements[i] = v
		}
	}
	return l, nil
}

// packageElement reads a constant, a string, a buffer, a package, or a name that stays a name.
func (m *machine) packageElement(f *frame) (value, error) {
	c, err := f.peek()
	if err != nil {
		return nil, err
	}
	if !isName(c) {
		return m.eval(f)
	}
	p, err := f.namePath()
	if err != nil {
		return nil, err
	}
	if err := m.step(1); err != nil {
		return nil, err
	}
	return &namePathIn{path: p, scope: f.scope}, m.alloc(blobSize + 16)
}

var errString error = fault("string without an end")

// text reads a string literal.
func (m *machine) text(f *frame) (value, error) {
	rest := f.code[f.pos:f.end]
	n := bytes.IndexByte(rest, 0)
	if n < 0 {
		return nil, errString
	}
	f.pos += n + 1
	return boxBlob(m.newBlob(rest[:n], true))
}
