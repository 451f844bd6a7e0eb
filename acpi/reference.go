package acpi

// reference is a place that a value can be stored in: exactly one of node, slot, list and blob is set,
// or none for the debug object.
type reference struct {
	node  *node
	slot  *value // a local or an argument
	arg   bool   // slot is an argument
	list  *list
	blob  *blob
	index int // into list or blob
}

func (m *machine) newReference(r reference) (*reference, error) {
	if err := m.alloc(refSize); err != nil {
		return nil, err
	}
	return &r, nil
}

// superName reads a place: a name, a local, an argument, the debug object, or an operator that yields
// a reference. A name that does not exist gives nil without an error.
func (m *machine) superName(f *frame) (*reference, error) {
	c, err := f.peek()
	switch {
	case err != nil:
		return nil, err
	case isName(c):
		p, err := f.namePath()
		if err != nil {
			return nil, err
		}
		n, err := m.lookup(f.scope, p)
		if err != nil || n == nil {
			return nil, err
		}
		return m.newReference(reference{node: n})
	case isLocal(c):
		f.pos++
		return m.newReference(reference{slot: &f.locals[c-opLocal0]})
	case isArg(c):
		f.pos++
		return m.newReference(reference{slot: &f.args[c-opArg0], arg: true})
	case c == extPrefix && f.pos+1 < f.end && f.code[f.pos+1] == byte(opDebug&0xff):
		f.pos += 2
		return m.newReference(reference{})
	}
	return m.referenceTerm(f)
}

// referenceTerm evaluates a term that must yield a place.
func (m *machine) referenceTerm(f *frame) (*reference, error) {
	v, err := m.eval(f)
	if err != nil {
		return nil, err
	}
	if r, ok := v.(*reference); ok {
		return r, nil
	}
	return nil, typeError(v, "a reference")
}

// target reads a place where a result goes; nil means that it goes nowhere.
func (m *machine) target(f *frame) (*reference, error) {
	if c, err := f.peek(); err == nil && c == 0 {
		f.pos++
		return nil, nil
	}
	return m.place(f)
}

// place reads a place that must exist. The name of a method means the place that the method returns.
func (m *machine) place(f *frame) (*reference, error) {
	start := f.pos
	r, err := m.existing(f)
	if err != nil || r.node == nil {
		return r, err
	}
	if !isName(f.code[start]) {
		return r, nil
	}
	if _, ok := r.node.value.(*method); ok {
		f.pos = start
		return m.referenceTerm(f)
	}
	return r, nil
}

// existing reads a place that must exist; a method is not called.
func (m *machine) existing(f *frame) (*reference, error) {
	start := f.pos
	r, err := m.superName(f)
	if err == nil && r == nil {
		f.pos = start
		p, _ := f.namePath()
		return nil, &nameError{p, errNotFound}
	}
	return r, err
}

// load returns the value in a place.
func (m *machine) load(r *reference) (value, error) {
	switch {
	case r.node != nil:
		return m.nodeValue(r.node)
	case r.slot != nil:
		if *r.slot == nil {
			return nil, errUninitialized
		}
		return *r.slot, nil
	case r.list != nil:
		return m.element(r.list, r.index)
	case r.blob != nil:
		if r.index >= len(r.blob.data) {
			return nil, errIndex
		}
		return uint64(r.blob.data[r.index]), nil
	}
	return nil, typeError(kindDebug, "data")
}

// element returns an element of a package, names in it resolved.
func (m *machine) element(l *list, i int) (value, error) {
	if i < 0 || i >= len(l.elements) {
		return nil, errIndex
	}
	switch v := l.elements[i].(type) {
	case nil:
		return nil, errUninitialized
	case *namePathIn:
		return m.resolve(v)
	default:
		return v, nil
	}
}

// resolve looks up a name that stands in a package. Names of data give the data; others stay objects.
func (m *machine) resolve(v *namePathIn) (value, error) {
	n, err := m.lookup(v.scope, v.path)
	if err != nil {
		return nil, err
	}
	if n == nil {
		return nil, &nameError{v.path, errNotFound}
	}
	if _, ok := n.value.(*method); ok {
		return n, nil
	}
	return m.nodeValue(n)
}

// nodeValue reads a named object: fields from where they lie, everything else as it is.
func (m *machine) nodeValue(n *node) (value, error) {
	switch v := n.value.(type) {
	case nil:
		return nil, &nameError{namePath{segments: n.name[:]}, errUninitialized}
	case *field:
		return m.readField(v)
	case *bufferField:
		return m.readBufferField(v)
	case kind, *method, *region:
		return n, nil
	default:
		return v, nil
	}
}

// store puts v into a place by the rules of the Store operator (ACPI 6.5, 19.3.5.5): names keep their
// type and the value is converted, locals, arguments and elements take it as it is.
func (m *machine) store(r *reference, v value) error {
	switch {
	case r == nil:
		return nil
	case r.node != nil:
		return m.storeNode(r.node, v)
	case r.slot != nil:
		return m.storeSlot(r, v)
	case r.list != nil:
		return m.storeElement(r, v)
	case r.blob != nil:
		return m.storeByte(r, v)
	}
	return nil // the debug object
}

// storeSlot overwrites a local. An argument that holds a reference passes the value on to what it
// refers to (ACPI 6.5, 19.3.5.8.1), without a conversion.
func (m *machine) storeSlot(r *reference, v value) error {
	if old, ok := (*r.slot).(*reference); ok && r.arg && (old.node != nil || old.slot != nil) {
		if err := m.step(1); err != nil {
			return err
		}
		return m.copyObject(old, v)
	}
	c, err := m.copyValue(v)
	if err == nil {
		*r.slot = c
	}
	return err
}

func (m *machine) storeElement(r *reference, v value) error {
	if r.index >= len(r.list.elements) {
		return errIndex
	}
	c, err := m.copyValue(v)
	if err == nil {
		r.list.elements[r.index] = c
	}
	return err
}

// storeByte takes the low byte of an integer and the first of anything else.
func (m *machine) storeByte(r *reference, v value) error {
	if r.index >= len(r.blob.data) {
		return errIndex
	}
	switch v := v.(type) {
	case uint64:
		r.blob.data[r.index] = byte(v)
	case *blob:
		var b byte
		if len(v.data) > 0 {
			b = v.data[0]
		}
		r.blob.data[r.index] = b
	default:
		return typeError(v, "an integer, string or buffer")
	}
	return nil
}

var errTarget error = fault("cannot be stored into")

// storeNode converts v to the type that a name has and stores it.
func (m *machine) storeNode(n *node, v value) error {
	switch old := n.value.(type) {
	case uint64:
		i, err := m.toInteger(v)
		if err == nil {
			n.value = i
		}
		return err
	case *blob:
		return m.storeBlob(n, old, v)
	case *field:
		return m.writeField(old, v)
	case *bufferField:
		return m.writeBufferField(old, v)
	case *list:
		if _, ok := v.(*list); !ok {
			return typeError(v, "a package")
		}
		return m.replace(n, v)
	}
	return &nameError{namePath{segments: n.name[:]}, errTarget}
}

// storeBlob: a string is replaced; a buffer keeps its length, unless it had none, as ACPICA has it.
func (m *machine) storeBlob(n *node, old *blob, v value) error {
	if old.text {
		c, err := m.toText(v)
		if err != nil {
			return err
		}
		return m.replace(n, c)
	}
	c, err := m.toBuffer(v)
	if err != nil {
		return err
	}
	if len(old.data) == 0 {
		return m.replace(n, c)
	}
	clear(old.data[copy(old.data, c.data):])
	return nil
}

// replace gives a name a copy of v.
func (m *machine) replace(n *node, v value) error {
	c, err := m.copyValue(v)
	if err == nil {
		n.value = c
	}
	return err
}

// copyObject puts v into a place without converting it: the CopyObject operator.
func (m *machine) copyObject(r *reference, v value) error {
	if r.node == nil {
		return m.store(r, v)
	}
	switch n := r.node.value.(type) {
	case *field, *bufferField:
		return m.storeNode(r.node, v)
	case kind:
		return typeError(n, "data")
	}
	return m.replace(r.node, v)
}
