package acpi

import "strings"

// segment is one name: four characters, padded with underscores.
type segment [4]byte

// node is a named object. Its place in the tree is fixed; its value may change.
type node struct {
	name   segment
	table  int  // index of the table that made it, -1 for predefined ones
	depth  int  // names above it
	ready  bool // its _INI was run
	parent *node
	value  value
}

// nodeSize is what a node costs with its entry in the namespace's map.
const nodeSize = 160

// nodeKey finds a child: one map for the whole tree is smaller than one for each node, and a hostile
// table with thousands of names in one scope costs no more than others.
type nodeKey struct {
	parent *node
	name   segment
}

// namePath is a NameString as it stands in AML (ACPI 6.5, 20.2.2): `\` or any number of `^`, then
// segments. The segments are a part of the table, not a copy.
type namePath struct {
	root     bool
	up       int
	segments []byte // four bytes each
}

func (p namePath) String() string {
	var b strings.Builder
	if p.root {
		b.WriteByte('\\')
	}
	b.WriteString(strings.Repeat("^", p.up))
	for i := 0; i+4 <= len(p.segments); i += 4 {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(segment(p.segments[i : i+4]).String())
	}
	return b.String()
}

// String leaves out the padding. Bytes that are no name characters can only come from a path that a
// program built; they are shown as question marks.
func (s segment) String() string {
	out := []byte(strings.TrimRight(string(s[:]), "_"))
	for i, c := range out {
		if !isLead(c) && (c < '0' || c > '9') {
			out[i] = '?'
		}
	}
	return string(out)
}

// path returns the full name of n, as `\_SB.VGEN`.
func (n *node) path() string {
	if n.parent == nil {
		return `\`
	}
	var names []string
	for ; n.parent != nil; n = n.parent {
		names = append(names, n.name.String())
	}
	var b strings.Builder
	for i := len(names) - 1; i >= 0; i-- {
		b.WriteString(map[bool]string{true: `\`, false: "."}[i == len(names)-1])
		b.WriteString(names[i])
	}
	return b.String()
}

// child returns the node of that name directly below n, or nil.
func (m *machine) child(n *node, name segment) *node { return m.nodes[nodeKey{n, name}] }

// start returns the node that a path counts from, or nil if it climbs above the root.
func (m *machine) start(scope *node, p namePath) *node {
	if p.root {
		scope = m.root
	}
	for i := 0; i < p.up && scope != nil; i++ {
		scope = scope.parent
	}
	return scope
}

// lookup follows the search rules of ACPI 6.5, 5.3: a single segment without prefix is looked for in
// the scope and in all scopes around it; any other path is taken as it stands. It returns nil if
// there is no such object. Aliases are followed.
func (m *machine) lookup(scope *node, p namePath) (*node, error) {
	n := m.start(scope, p)
	if err := m.step(1 + p.up); err != nil || n == nil {
		return nil, err
	}
	if !p.root && p.up == 0 && len(p.segments) == 4 {
		return m.search(n, segment(p.segments))
	}
	for i := 0; i < len(p.segments) && n != nil; i += 4 {
		if err := m.step(1); err != nil {
			return nil, err
		}
		n = follow(m.child(n, segment(p.segments[i:i+4])))
	}
	return n, nil
}

func (m *machine) search(scope *node, name segment) (*node, error) {
	for ; scope != nil; scope = scope.parent {
		if err := m.step(1); err != nil {
			return nil, err
		}
		if n := m.child(scope, name); n != nil {
			return follow(n), nil
		}
	}
	return nil, nil
}

// alias makes a node a second name of another. An alias always points to a node that is none, so one
// step suffices.
type alias struct{ to *node }

func follow(n *node) *node {
	if n != nil {
		if a, ok := n.value.(*alias); ok {
			return a.to
		}
	}
	return n
}

// create makes a new object. Its last segment is new, the others must exist: names are never
// searched for upwards when they are defined.
func (m *machine) create(f *frame, p namePath, v value) (*node, error) {
	if len(p.segments) == 0 {
		return nil, &nameError{p, errNoName}
	}
	last := len(p.segments) - 4
	parent := m.start(f.scope, p)
	for i := 0; i < last && parent != nil; i += 4 {
		parent = follow(m.child(parent, segment(p.segments[i:i+4])))
	}
	if err := m.step(1 + p.up + len(p.segments)/4); err != nil {
		return nil, err
	}
	if parent == nil {
		return nil, &nameError{p, errParent}
	}
	return m.addNode(f, parent, segment(p.segments[last:]), v)
}

func (m *machine) addNode(f *frame, parent *node, name segment, v value) (*node, error) {
	key := nodeKey{parent, name}
	if _, ok := m.nodes[key]; ok {
		return nil, &nameError{namePath{segments: name[:]}, errDefined}
	}
	if err := m.alloc(nodeSize); err != nil {
		return nil, err
	}
	if parent.depth == maxDepth {
		return nil, errDepth
	}
	if len(m.slab) == 0 {
		m.slab = make([]node, 32)
	}
	n := &m.slab[0]
	m.slab = m.slab[1:]
	*n = node{name: name, table: f.table, depth: parent.depth + 1, parent: parent, value: v}
	m.nodes[key] = n
	if !f.module {
		f.created = append(f.created, n)
	}
	return n, nil
}

// forget removes what a method defined; ACPI 6.5, 5.5.2.3 lets such objects live as long as the call.
func (m *machine) forget(nodes []*node) {
	for _, n := range nodes {
		delete(m.nodes, nodeKey{n.parent, n.name})
	}
}
