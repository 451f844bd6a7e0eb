package acpi

import "rouse/internal/fmt"

var (
	errTruncated error = fault("AML ends in the middle of a term")
	errNotFound  error = fault("not found")
	errParent    error = fault("nothing to define it in")
	errDefined   error = fault("defined already")
	errNoName    error = fault("no name for a new object")
)

// nameError is an error about a name. It is put into words only if somebody asks: a hostile table
// makes thousands that nobody reads.
type nameError struct {
	path namePath
	err  error
}

func (e *nameError) Error() string { return e.path.String() + ": " + e.err.Error() }
func (e *nameError) Unwrap() error { return e.err }

// control says how a list of terms goes on.
type control uint8

const (
	run control = iota
	breaking
	continuing
	returning
)

// frame is code being run: a table's body or a method call. Blocks within share it and narrow end and
// scope for their time.
type frame struct {
	code     []byte
	pos, end int
	scope    *node
	table    int
	module   bool // outside any method: definitions stay, and a bad term is skipped
	control  control
	result   value
	locals   [8]value
	args     [7]value
	created  []*node
}

// frameSize is what a method call costs.
const frameSize = 400

func (f *frame) peek() (byte, error) {
	if f.pos >= f.end {
		return 0, errTruncated
	}
	return f.code[f.pos], nil
}

func (f *frame) byte() (byte, error) {
	b, err := f.peek()
	if err == nil {
		f.pos++
	}
	return b, err
}

func (f *frame) bytes(n int) ([]byte, error) {
	if n < 0 || n > f.end-f.pos {
		return nil, errTruncated
	}
	p := f.code[f.pos : f.pos+n : f.pos+n]
	f.pos += n
	return p, nil
}

// number reads n bytes, least significant first.
func (f *frame) number(n int) (uint64, error) {
	p, err := f.bytes(n)
	return little(p), err
}

func little(p []byte) (v uint64) {
	for i := len(p) - 1; i >= 0; i-- {
		v = v<<8 | uint64(p[i])
	}
	return v
}

// opcode reads an operator: one byte, or two if the first is the prefix 0x5b.
func (f *frame) opcode() (uint16, error) {
	b, err := f.byte()
	if err != nil || b != extPrefix {
		return uint16(b), err
	}
	b, err = f.byte()
	return extPrefix<<8 | uint16(b), err
}

// packageLength reads a PkgLength (ACPI 6.5, 20.2.4) as it stands: the top two bits of the first
// byte say how many more follow.
func (f *frame) packageLength() (int, error) {
	lead, err := f.byte()
	if err != nil {
		return 0, err
	}
	more := int(lead >> 6)
	if more == 0 {
		return int(lead & 0x3f), nil
	}
	rest, err := f.number(more)
	return int(lead&0x0f) | int(rest)<<4, err
}

// blockEnd reads a PkgLength that counts from its own first byte and returns where the block ends.
func (f *frame) blockEnd() (int, error) {
	start := f.pos
	n, err := f.packageLength()
	if err != nil {
		return 0, err
	}
	if n < f.pos-start || n > f.end-start {
		return 0, errTruncated
	}
	return start + n, nil
}

// isLead tells whether a name segment may begin with c.
func isLead(c byte) bool { return c >= 'A' && c <= 'Z' || c == '_' }

// isName tells whether a NameString begins with c. The null name is not among them: as a term, 0 is
// the number zero.
func isName(c byte) bool {
	return isLead(c) || c == '\\' || c == '^' || c == dualPrefix || c == multiPrefix
}

const (
	dualPrefix  = 0x2e
	multiPrefix = 0x2f
	extPrefix   = 0x5b
)

// namePath reads a NameString.
func (f *frame) namePath() (namePath, error) {
	var p namePath
	for {
		c, err := f.byte()
		switch {
		case err != nil:
			return p, err
		case c == '\\' && !p.root && p.up == 0:
			p.root = true
		case c == '^' && !p.root:
			p.up++
		default:
			n, err := f.segmentCount(c)
			if err == nil {
				p.segments, err = f.segments(n)
			}
			return p, err
		}
	}
}

// segmentCount returns how many segments follow, c being the first byte after all prefixes.
func (f *frame) segmentCount(c byte) (int, error) {
	switch {
	case c == 0:
		return 0, nil
	case c == dualPrefix:
		return 2, nil
	case c == multiPrefix:
		n, err := f.byte()
		return int(n), err
	case isLead(c):
		f.pos--
		return 1, nil
	}
	return 0, fmt.Errorf("byte %#02x is no name", c)
}

func (f *frame) segments(n int) ([]byte, error) {
	p, err := f.bytes(4 * n)
	for i, c := range p {
		if !isLead(c) && (i%4 == 0 || c < '0' || c > '9') {
			return nil, fmt.Errorf("byte %#02x in a name", c)
		}
	}
	return p, err
}
