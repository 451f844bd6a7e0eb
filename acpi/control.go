package acpi

import "rouse/internal/fmt"

func (m *machine) opBreak(f *frame, _ []value) (value, error) {
	f.control = breaking
	return nil, nil
}

func (m *machine) opContinue(f *frame, _ []value) (value, error) {
	f.control = continuing
	return nil, nil
}

func (m *machine) opReturn(f *frame, a []value) (value, error) {
	f.control, f.result = returning, a[0]
	return nil, nil
}

// predicate evaluates the condition of a block that ends at end.
func (m *machine) predicate(f *frame, end int) (bool, error) {
	old := f.end
	f.end = end
	v, err := m.operand(f, 'i')
	f.end = old
	if err != nil {
		return false, err
	}
	return v.(uint64) != 0, nil
}

// opIf runs its block, or that of the Else that follows.
func (m *machine) opIf(f *frame, a []value) (value, error) {
	end := int(a[0].(uint64))
	yes, err := m.predicate(f, end)
	if err != nil {
		return nil, err
	}
	if yes {
		if err := m.block(f, end, f.scope); err != nil {
			return nil, err
		}
	}
	f.pos = end
	if c, err := f.peek(); err != nil || c != opElse {
		return nil, nil
	}
	f.pos++
	if end, err = f.blockEnd(); err != nil {
		return nil, err
	}
	if !yes {
		return nil, m.block(f, end, f.scope)
	}
	f.pos = end
	return nil, nil
}

// opStrayElse is an Else whose If was skipped.
func (m *machine) opStrayElse(f *frame, a []value) (value, error) {
	f.pos = int(a[0].(uint64))
	return nil, nil
}

// opWhile ends when its condition does, or when the steps run out.
func (m *machine) opWhile(f *frame, a []value) (value, error) {
	start, end := f.pos, int(a[0].(uint64))
	for f.control == run {
		f.pos = start
		yes, err := m.predicate(f, end)
		if err != nil {
			return nil, err
		}
		if !yes {
			break
		}
		if err := m.block(f, end, f.scope); err != nil {
			return nil, err
		}
		if f.control == continuing {
			f.control = run
		}
	}
	if f.control == breaking {
		f.control = run
	}
	f.pos = end
	return nil, nil
}

func (m *machine) opStore(_ *frame, a []value) (value, error) {
	if a[0] == nil {
		return nil, errUninitialized
	}
	return a[0], m.store(a[1].(*reference), a[0])
}

func (m *machine) opCopyObject(_ *frame, a []value) (value, error) {
	if a[0] == nil {
		return nil, errUninitialized
	}
	return a[0], m.copyObject(a[1].(*reference), a[0])
}

// opDerefOf follows a reference once, or a name given as a string.
func (m *machine) opDerefOf(f *frame, a []value) (value, error) {
	switch v := a[0].(type) {
	case *reference:
		return m.load(v)
	case *blob:
		if v.text {
			return m.derefString(f, v)
		}
	case *node:
		return nil, typeError(v, "a reference")
	}
	return nil, typeError(a[0], "a reference")
}

// derefString looks up a path written out, as "^VGEN.ADDR".
func (m *machine) derefString(f *frame, s *blob) (value, error) {
	p, err := parsePath(string(s.data))
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
	return m.nodeValue(n)
}

// parsePath reads a path as people write it.
func parsePath(s string) (namePath, error) {
	var p namePath
	for ; s != "" && s[0] == '^'; s = s[1:] {
		p.up++
	}
	if s != "" && s[0] == '\\' && p.up == 0 {
		p.root, s = true, s[1:]
	}
	for s != "" {
		name := [4]byte{'_', '_', '_', '_'}
		n := 0
		for n < len(s) && s[n] != '.' {
			if n == 4 || !isLead(s[n]) && (n == 0 || s[n] < '0' || s[n] > '9') {
				return p, fmt.Errorf("%q is no name", s)
			}
			name[n] = s[n]
			n++
		}
		if n == 0 || len(p.segments) >= 4*255 {
			return p, fmt.Errorf("%q is no name", s)
		}
		p.segments = append(p.segments, name[:]...)
		if s = s[n:]; s != "" {
			s = s[1:]
		}
	}
	return p, nil
}

// opIndex yields a reference to an element of a package or a byte of a string or buffer.
func (m *machine) opIndex(_ *frame, a []value) (value, error) {
	i := a[1].(uint64)
	r := reference{}
	size := 0
	switch v := a[0].(type) {
	case *list:
		r.list, size = v, len(v.elements)
	case *blob:
		r.blob, size = v, len(v.data)
	default:
		return nil, typeError(a[0], "a package, string or buffer")
	}
	if i >= uint64(size) {
		return nil, fmt.Errorf("%w: %d of %d", errIndex, i, size)
	}
	r.index = int(i)
	ref, err := m.newReference(r)
	if err != nil {
		return nil, err
	}
	return m.result(a[2], ref)
}

func (m *machine) opCondRefOf(_ *frame, a []value) (value, error) {
	r, _ := a[0].(*reference)
	if r == nil {
		return uint64(0), nil
	}
	t, _ := a[1].(*reference)
	return m.truth(true), m.store(t, r)
}

// opSizeOf measures data; a field is none, whatever reading it would give.
func (m *machine) opSizeOf(_ *frame, a []value) (value, error) {
	r := a[0].(*reference)
	if r.node != nil && isField(r.node.value) {
		return nil, typeError(r.node.value, "data")
	}
	v, err := m.load(r)
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case uint64:
		return uint64(m.width() / 8), nil
	case *blob:
		return uint64(len(v.data)), nil
	case *list:
		return uint64(len(v.elements)), nil
	}
	return nil, typeError(v, "data")
}

// opObjectType looks at the place, not at what it yields: a field stays a field.
func (m *machine) opObjectType(_ *frame, a []value) (value, error) {
	r := a[0].(*reference)
	for range maxDepth {
		var v value
		switch {
		case r.node != nil:
			v = r.node.value
		case r.slot != nil:
			v = *r.slot
		case r.list != nil:
			v, _ = m.element(r.list, r.index)
		case r.blob != nil:
			return uint64(kindBufferField), nil
		default:
			return uint64(kindDebug), nil
		}
		next, ok := v.(*reference)
		if !ok {
			return uint64(kindOf(v)), m.step(1)
		}
		r = next
	}
	return nil, errDepth
}
