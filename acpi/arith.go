package acpi

import (
	"bytes"
	"cmp"
	"errors"
	"math/bits"

	"rouse/internal/fmt"
)

var errUnsupported error = fault("not supported")

func (m *machine) opZero(*frame, []value) (value, error) { return uint64(0), nil }

func (m *machine) opOne(*frame, []value) (value, error) { return uint64(1), nil }

func (m *machine) opOnes(*frame, []value) (value, error) { return m.truth(true), nil }

func (m *machine) opRevision(*frame, []value) (value, error) { return uint64(amlRevision), nil }

// literal: constants wider than this namespace's integers lose their upper half.
func literal(m *machine, _ *frame, a []value) (value, error) { return m.integer(a[0].(uint64)), nil }

// result stores what an operator computed in its target and yields it.
func (m *machine) result(target, v value) (value, error) {
	r, _ := target.(*reference)
	return v, m.store(r, v)
}

// number stores and yields an integer that may be wider than integers are. ACPICA cuts it to 32 bits
// everywhere but in fields and in a package's element, which get all of it, and that is where ADDR
// methods put their results. Linux takes the address from there, so we do as ACPICA does.
func (m *machine) number(target value, v uint64) (value, error) {
	r, _ := target.(*reference)
	if r != nil && (r.list != nil || r.node != nil && isField(r.node.value)) {
		return m.integer(v), m.store(r, v)
	}
	return m.integer(v), m.store(r, m.integer(v))
}

// integers computes with two of them.
func (m *machine) integers(code uint16, a []value) (value, error) {
	x, y := a[0].(uint64), a[1].(uint64)
	switch code {
	case 0x72: // Add
		x += y
	case 0x74: // Subtract
		x -= y
	case 0x77: // Multiply
		x *= y
	case 0x79: // ShiftLeft
		x <<= m.count(y)
	case 0x7a: // ShiftRight
		x >>= m.count(y)
	case 0x7b: // And
		x &= y
	case 0x7c: // Nand
		x = ^(x & y)
	case 0x7d: // Or
		x |= y
	case 0x7e: // Nor
		x = ^(x | y)
	case 0x7f: // Xor
		x ^= y
	}
	return m.number(a[2], x)
}

// count is the second operand of a shift: shifting by the width of an integer or more leaves nothing.
func (m *machine) count(n uint64) uint64 {
	if n < uint64(m.width()) {
		return n
	}
	return 64
}

// bits computes with one integer.
func (m *machine) bits(code uint16, a []value) (value, error) {
	x := a[0].(uint64)
	switch code {
	case 0x80: // Not
		x = ^x
	case 0x81: // FindSetLeftBit
		x = uint64(bits.Len64(x))
	case 0x82: // FindSetRightBit
		x = rightBit(x)
	}
	return m.number(a[1], x)
}

func rightBit(v uint64) uint64 {
	if v == 0 {
		return 0
	}
	return uint64(bits.TrailingZeros64(v)) + 1
}

var errDivide error = fault("division by zero")

func (m *machine) opDivide(_ *frame, a []value) (value, error) {
	x, y := a[0].(uint64), a[1].(uint64)
	if y == 0 {
		return nil, errDivide
	}
	if _, err := m.result(a[2], x%y); err != nil {
		return nil, err
	}
	return m.result(a[3], x/y)
}

func (m *machine) opMod(_ *frame, a []value) (value, error) {
	if a[1].(uint64) == 0 {
		return nil, errDivide
	}
	return m.result(a[2], a[0].(uint64)%a[1].(uint64))
}

func (m *machine) opIncrement(_ *frame, a []value) (value, error) { return m.add(a[0].(*reference), 1) }

func (m *machine) opDecrement(_ *frame, a []value) (value, error) {
	return m.add(a[0].(*reference), ^uint64(0))
}

func (m *machine) add(r *reference, n uint64) (value, error) {
	v, err := m.load(r)
	if err != nil {
		return nil, err
	}
	i, err := m.toInteger(v)
	if err != nil {
		return nil, err
	}
	return m.number(r, i+n)
}

// logical is LAnd, LOr and LNot.
func (m *machine) logical(code uint16, a []value) (value, error) {
	v := a[0].(uint64) != 0
	switch code {
	case 0x90: // LAnd
		v = v && a[1].(uint64) != 0
	case 0x91: // LOr
		v = v || a[1].(uint64) != 0
	case 0x92: // LNot
		v = !v
	}
	return m.truth(v), nil
}

// compares is LEqual, LGreater and LLess.
func (m *machine) compares(code uint16, a []value) (value, error) {
	c, err := m.compareValues(a[0], a[1])
	switch code {
	case 0x93: // LEqual
		return m.truth(c == 0), err
	case 0x94: // LGreater
		return m.truth(c > 0), err
	}
	return m.truth(c < 0), err
}

// compareValues converts b to the type of a and compares as LEqual, LGreater and LLess do.
func (m *machine) compareValues(a, b value) (int, error) {
	switch x := a.(type) {
	case uint64:
		y, err := m.toInteger(b)
		return cmp.Compare(x, y), err
	case *blob:
		convert := m.toBuffer
		if x.text {
			convert = m.toText
		}
		y, err := convert(b)
		if err != nil {
			return 0, err
		}
		return bytes.Compare(x.data, y.data), m.step(min(len(x.data), len(y.data)) / 64)
	}
	return 0, typeError(a, "an integer, string or buffer")
}

// opMatch looks for the first element from a start index on that passes two comparisons.
func (m *machine) opMatch(_ *frame, a []value) (value, error) {
	l, ok := a[0].(*list)
	if !ok {
		return nil, typeError(a[0], "a package")
	}
	start := a[5].(uint64)
	if start >= uint64(len(l.elements)) {
		return nil, errIndex
	}
	for i := int(start); i < len(l.elements); i++ {
		if err := m.step(1); err != nil {
			return nil, err
		}
		v, err := m.element(l, i)
		if errors.Is(err, ErrLimit) {
			return nil, err
		}
		if err == nil && m.matches(v, a[1], a[2]) && m.matches(v, a[3], a[4]) {
			return uint64(i), nil
		}
	}
	return m.integer(^uint64(0)), nil
}

func (m *machine) matches(element, operator, operand value) bool {
	o := operator.(uint64)
	if o == 0 { // MTR: any element passes
		return true
	}
	c, err := m.compareValues(operand, element)
	switch {
	case err != nil:
		return false
	case o == 1: // MEQ
		return c == 0
	case o == 2: // MLE: element <= operand
		return c >= 0
	case o == 3: // MLT
		return c > 0
	case o == 4: // MGE
		return c <= 0
	case o == 5: // MGT
		return c < 0
	}
	return false
}

// opConcatenate joins two values of the first one's type; two integers make a buffer.
func (m *machine) opConcatenate(_ *frame, a []value) (value, error) {
	first, err := m.concatenable(a[0])
	if err != nil {
		return nil, err
	}
	second, err := m.concatenable(a[1])
	if err != nil {
		return nil, err
	}
	convert, text := m.toBuffer, false
	if b, ok := first.(*blob); ok && b.text {
		convert, text = m.toText, true
	}
	if _, ok := first.(uint64); ok {
		if second, err = box(m.toInteger(second)); err != nil {
			return nil, err
		}
	}
	x, err := convert(first)
	if err != nil {
		return nil, err
	}
	y, err := convert(second)
	if err != nil {
		return nil, err
	}
	if err := m.alloc(blobSize + len(x.data) + len(y.data)); err != nil {
		return nil, err
	}
	return m.result(a[2], &blob{data: append(bytes.Clone(x.data), y.data...), text: text})
}

// concatenable replaces what is no data by a string that says what it is.
func (m *machine) concatenable(v value) (value, error) {
	switch kindOf(v) {
	case kindInteger, kindString, kindBuffer:
		return v, nil
	case kindPackage:
		return boxBlob(m.newText("[Package Object]"))
	case kindDevice:
		return boxBlob(m.newText("[Device Object]"))
	}
	return nil, typeError(v, "data")
}

// converted makes an operator of a conversion.
func (m *machine) converted(target value, v *blob, err error) (value, error) {
	if err != nil {
		return nil, err
	}
	return m.result(target, v)
}

func (m *machine) opToBuffer(_ *frame, a []value) (value, error) {
	v, err := m.toBuffer(a[0])
	return m.converted(a[1], v, err)
}

func (m *machine) opToHexString(_ *frame, a []value) (value, error) {
	v, err := m.toHexString(a[0])
	return m.converted(a[1], v, err)
}

func (m *machine) opToDecimalString(_ *frame, a []value) (value, error) {
	v, err := m.toDecimalString(a[0])
	return m.converted(a[1], v, err)
}

func (m *machine) opToInteger(_ *frame, a []value) (value, error) {
	v, err := m.parseInteger(a[0])
	if err != nil {
		return nil, err
	}
	return m.result(a[1], v)
}

// opToString makes a string of a buffer up to its first NUL or a given length.
func (m *machine) opToString(_ *frame, a []value) (value, error) {
	b, err := m.toBuffer(a[0])
	if err != nil {
		return nil, err
	}
	n := min(a[1].(uint64), uint64(len(b.data)))
	data := b.data[:n]
	if i := bytes.IndexByte(data, 0); i >= 0 {
		data = data[:i]
	}
	v, err := m.newBlob(data, true)
	return m.converted(a[2], v, err)
}

// opMid takes a part of a string or buffer; what lies beyond its end is left out.
func (m *machine) opMid(_ *frame, a []value) (value, error) {
	b, ok := a[0].(*blob)
	if !ok {
		var err error
		if b, err = m.toBuffer(a[0]); err != nil {
			return nil, err
		}
	}
	size := uint64(len(b.data))
	start := min(a[1].(uint64), size)
	n := min(a[2].(uint64), size-start)
	v, err := m.newBlob(b.data[start:start+n], b.text)
	return m.converted(a[3], v, err)
}

func (m *machine) opFromBCD(_ *frame, a []value) (value, error) {
	var v, unit uint64 = 0, 1
	for x := a[0].(uint64); x != 0; x, unit = x>>4, unit*10 {
		if x&15 > 9 {
			return nil, fmt.Errorf("%w: %#x is no decimal", errType, a[0])
		}
		v += x & 15 * unit
	}
	return m.result(a[1], m.integer(v))
}

func (m *machine) opToBCD(_ *frame, a []value) (value, error) {
	var v uint64
	x := a[0].(uint64)
	for place := 0; x != 0; place, x = place+4, x/10 {
		if place >= m.width() {
			return nil, fmt.Errorf("%w: too large for a decimal", errType)
		}
		v |= x % 10 << place
	}
	return m.result(a[1], v)
}

func (m *machine) opFatal(_ *frame, a []value) (value, error) {
	return nil, fmt.Errorf("firmware gave up: type %#x, code %#x, argument %#x", a[0], a[1], a[2])
}

// amlRevision is what ACPICA 20200925 answers; some firmware compares it.
const amlRevision = 0x20200925

// opTimer counts units of 100 ns in ACPI; here, every look is 10 us later, so that loops that wait
// for time to pass end, and every run gives the same.
func (m *machine) opTimer(*frame, []value) (value, error) {
	m.timer += 100
	return m.integer(m.timer), nil
}
