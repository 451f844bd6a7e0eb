package acpi

import (
	"errors"

	"rouse/internal/fmt"
)

// machine is a namespace and what is needed to evaluate in it.
type machine struct {
	budget
	read    ReadMemory
	narrow  bool // integers have 32 bits
	root    *node
	nodes   map[nodeKey]*node
	slab    []node  // nodes not in use yet
	devices []*node // in the order they were defined
	stack   []value // operands of the operators being evaluated
	memory  map[uint64]byte
	timer   uint64
	notes   []error // what went wrong while loading
}

// method is code to be called. A native method has no code: its result is computed here.
type method struct {
	code   []byte
	args   int
	table  int
	native func(m *machine, args []value) (value, error)
}

// runList runs terms until the end of the block. Outside methods a bad term is noted and skipped, so
// that one mistake of a firmware does not hide the devices behind it.
func (m *machine) runList(f *frame) error {
	end, scope := f.end, f.scope
	for f.pos < f.end && f.control == run {
		start := f.pos
		_, err := m.eval(f)
		if err == nil {
			continue
		}
		if !f.module || errors.Is(err, ErrLimit) {
			return err
		}
		if err := m.note(f, start, err); err != nil {
			return err
		}
		f.pos, f.end, f.scope = start, end, scope
		if err := m.skip(f); err != nil {
			return err
		}
	}
	return nil
}

// note remembers an error while loading.
func (m *machine) note(f *frame, pos int, err error) error {
	if len(m.notes) < maxNotes {
		m.notes = append(m.notes, fmt.Errorf("%s at %d: %w", f.scope.path(), headerSize+pos, err))
	}
	return m.alloc(512) // what the making of err took
}

// block runs the terms up to end in a scope and leaves f behind it, unless control goes elsewhere.
func (m *machine) block(f *frame, end int, scope *node) error {
	if err := m.enter(); err != nil {
		return err
	}
	defer m.leave()
	oldEnd, oldScope := f.end, f.scope
	f.end, f.scope = end, scope
	err := m.runList(f)
	f.end, f.scope = oldEnd, oldScope
	f.pos = end
	return err
}

// eval evaluates one term: a statement, or an expression whose value it returns.
func (m *machine) eval(f *frame) (value, error) {
	if err := m.enter(); err != nil {
		return nil, err
	}
	defer m.leave()
	if err := m.step(1); err != nil {
		return nil, err
	}
	c, err := f.peek()
	switch {
	case err != nil:
		return nil, err
	case isName(c):
		return m.evalName(f)
	case isLocal(c):
		f.pos++
		return slot(f.locals[c-opLocal0], "Local", c-opLocal0)
	case isArg(c):
		f.pos++
		return slot(f.args[c-opArg0], "Arg", c-opArg0)
	}
	code, err := f.opcode()
	if err != nil {
		return nil, err
	}
	op, ok := lookupOperator(code)
	if !ok {
		return nil, fmt.Errorf("unknown opcode %#02x", code)
	}
	return m.operate(f, op)
}

func slot(v value, what string, i byte) (value, error) {
	if v == nil {
		return nil, fmt.Errorf("%s%d: %w", what, i, errUninitialized)
	}
	return v, nil
}

// operate reads the operands as the operator's signature has them and runs it.
func (m *machine) operate(f *frame, op operator) (value, error) {
	base := len(m.stack)
	defer func() { m.stack = m.stack[:base] }()
	for i := 0; i < len(op.operands); i++ {
		v, err := m.operand(f, op.operands[i])
		if err != nil {
			return nil, locate(op.name, err)
		}
		m.stack = append(m.stack, v)
	}
	v, err := m.perform(op.code, f, m.stack[base:])
	return v, locate(op.name, err)
}

// located is an error with the innermost operator or method that it came from. Naming all of them
// would make errors grow with the square of the nesting.
type located struct {
	where string
	err   error
}

func (l *located) Error() string { return l.where + ": " + l.err.Error() }
func (l *located) Unwrap() error { return l.err }

func locate(where string, err error) error {
	if _, ok := err.(*located); ok || err == nil {
		return err
	}
	return &located{where, err}
}

// operand reads one operand; see operators for the letters.
func (m *machine) operand(f *frame, letter byte) (value, error) {
	switch letter {
	case 'i':
		v, err := m.dataTerm(f)
		if err != nil {
			return nil, err
		}
		return box(m.toInteger(v))
	case 'v':
		return m.dataTerm(f)
	case 'a':
		return m.eval(f)
	case 's':
		return m.place(f)
	case 'r':
		return m.existing(f)
	case 't':
		return m.target(f)
	case 'c':
		return m.superName(f)
	case 'N':
		p, err := f.namePath()
		if err != nil {
			return nil, err
		}
		return p, m.alloc(blobSize)
	case 'Z':
		return m.text(f)
	case 'P':
		end, err := f.blockEnd()
		return uint64(end), err
	}
	return box(f.number(int(letter - '0')))
}

// box and boxBlob make results of functions that return one type fit for those that return values; a nil
// blob becomes a nil value.
func box(v uint64, err error) (value, error) { return v, err }

func boxBlob(b *blob, err error) (value, error) {
	if err != nil {
		return nil, err
	}
	return b, nil
}

// dataTerm evaluates a term whose value is used at once. An Index operator that stands right there
// means the element, not the reference to it.
func (m *machine) dataTerm(f *frame) (value, error) {
	c, err := f.peek()
	if err != nil {
		return nil, err
	}
	v, err := m.eval(f)
	if r, ok := v.(*reference); ok && c == opIndex && r.list != nil && err == nil {
		return m.load(r)
	}
	return v, err
}

// evalName evaluates a name: a method is called with the terms that follow, data is read.
func (m *machine) evalName(f *frame) (value, error) {
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
	call, ok := n.value.(*method)
	if !ok {
		return m.nodeValue(n)
	}
	var args [7]value
	for i := range call.args {
		if args[i], err = m.eval(f); err != nil {
			return nil, err
		}
	}
	v, err := m.call(n, call, args)
	return v, err
}

// call runs a method. Its scope is its own node: names in it are looked up from there, and names it
// defines live there until it returns. A method that returns nothing gives nil.
func (m *machine) call(n *node, c *method, args [7]value) (value, error) {
	if c.native != nil {
		return c.native(m, args[:c.args])
	}
	if err := m.alloc(frameSize); err != nil {
		return nil, err
	}
	if err := m.enter(); err != nil {
		return nil, err
	}
	defer m.leave()
	f := &frame{code: c.code, end: len(c.code), scope: n, table: c.table, args: args}
	err := m.runList(f)
	m.forget(f.created)
	return f.result, err
}

// evaluate returns the value of a named object as a caller from outside gets it: a method without
// arguments is called, a reference followed.
func (m *machine) evaluate(n *node) (value, error) {
	saved := m.steps
	m.steps = min(saved, callSteps)
	given := m.steps
	defer func() { m.steps += saved - given }()
	var v value
	var err error
	if c, ok := n.value.(*method); ok {
		v, err = m.call(n, c, [7]value{})
	} else {
		v, err = m.nodeValue(n)
	}
	if r, ok := v.(*reference); ok && err == nil {
		v, err = m.load(r)
	}
	if err != nil {
		return nil, wrap("evaluate "+n.path(), err)
	}
	return v, nil
}

// skip steps over one term without evaluating it.
func (m *machine) skip(f *frame) error {
	if err := m.enter(); err != nil {
		return err
	}
	defer m.leave()
	if err := m.step(1); err != nil {
		return err
	}
	c, err := f.peek()
	switch {
	case err != nil:
		return err
	case isName(c):
		return m.skipName(f)
	case isLocal(c), isArg(c):
		f.pos++
		return nil
	}
	code, err := f.opcode()
	if err != nil {
		return err
	}
	op, ok := lookupOperator(code)
	if !ok {
		return fmt.Errorf("unknown opcode %#02x", code)
	}
	for i := 0; i < len(op.operands); i++ {
		if err := m.skipOperand(f, op.operands[i]); err != nil {
			return err
		}
	}
	return nil
}

// skipName steps over a name and, if it is a method's, its arguments.
func (m *machine) skipName(f *frame) error {
	p, err := f.namePath()
	if err != nil {
		return err
	}
	n, err := m.lookup(f.scope, p)
	if err != nil || n == nil {
		return err
	}
	if c, ok := n.value.(*method); ok {
		for range c.args {
			if err := m.skip(f); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *machine) skipOperand(f *frame, letter byte) error {
	switch letter {
	case 'i', 'v', 'a':
		return m.skip(f)
	case 's', 't':
		if c, err := f.peek(); err == nil && c == 0 && letter == 't' {
			f.pos++
			return nil
		}
		return m.skip(f)
	case 'r', 'c':
		return m.skipPlace(f)
	case 'N':
		_, err := f.namePath()
		return err
	case 'Z':
		_, err := m.text(f)
		return err
	case 'P':
		end, err := f.blockEnd()
		if err == nil {
			f.pos = end
		}
		return err
	}
	_, err := f.bytes(int(letter - '0'))
	return err
}

// skipPlace steps over a place in which a method's name is not a call.
func (m *machine) skipPlace(f *frame) error {
	if c, err := f.peek(); err != nil || !isName(c) {
		return m.skip(f)
	}
	_, err := f.namePath()
	return err
}
