package acpi

import (
	"bytes"
	"encoding/binary"
	"io"

	"rouse/internal/fmt"
)

// Flattened device trees (Devicetree Specification 0.4, chapter 5): a header of big-endian numbers, a
// block of tokens, and a block of the properties' names.
const (
	blobMagic      = 0xd00dfeed
	blobHeader     = 40
	blobCompatible = 17 // the version that all others since 2005 can be read as

	tokenBegin    = 1
	tokenEnd      = 2
	tokenProperty = 3
	tokenNop      = 4
	tokenLast     = 9
)

// blobNode is a node of a flattened tree. Of its properties only those are kept that are asked for.
type blobNode struct {
	label      string
	properties map[string][]byte
	below      []treeNode
}

func (n *blobNode) name() string                         { return n.label }
func (n *blobNode) children() ([]treeNode, error)        { return n.below, nil }
func (n *blobNode) property(name string) ([]byte, error) { return n.properties[name], nil }

// kept tells which properties matter.
func kept(name string) bool {
	switch name {
	case "compatible", "status", "reg", "ranges", "#address-cells", "#size-cells":
		return true
	}
	return false
}

// blobReader steps through the tokens.
type blobReader struct {
	tokens, names []byte
	open          []*blobNode
	nodes         int
}

// parseBlob returns the root of a flattened tree. Nodes and properties point into blob.
func parseBlob(blob []byte) (*blobNode, error) {
	r, err := openBlob(blob)
	if err != nil {
		return nil, err
	}
	var root blobNode
	r.open = []*blobNode{&root}
	for {
		done, err := r.token()
		if err != nil {
			return nil, err
		}
		if done {
			break
		}
	}
	if len(r.open) != 1 || len(root.below) != 1 {
		return nil, fmt.Errorf("%w: not one root node", ErrTree)
	}
	return root.below[0].(*blobNode), nil
}

// openBlob checks the header and cuts out the blocks.
func openBlob(blob []byte) (*blobReader, error) {
	if len(blob) < blobHeader || binary.BigEndian.Uint32(blob) != blobMagic {
		return nil, fmt.Errorf("%w: no flattened device tree", ErrTree)
	}
	word := func(at int) uint64 { return uint64(binary.BigEndian.Uint32(blob[at:])) }
	total := word(4)
	if total > uint64(len(blob)) || total < blobHeader {
		return nil, fmt.Errorf("%w: length is %d of %d bytes", ErrTree, total, len(blob))
	}
	if last := word(24); last > blobCompatible || word(20) < blobCompatible {
		return nil, fmt.Errorf("%w: version %d, readable as %d", ErrTree, word(20), last)
	}
	tokens, names := word(8), word(12)
	if tokens+word(36) > total || names+word(32) > total {
		return nil, fmt.Errorf("%w: blocks beyond the end", ErrTree)
	}
	return &blobReader{tokens: blob[tokens : tokens+word(36)], names: blob[names : names+word(32)]}, nil
}

// token reads one token and tells whether it was the last.
func (r *blobReader) token() (bool, error) {
	t, err := r.word()
	if err != nil {
		return false, err
	}
	switch t {
	case tokenBegin:
		return false, r.begin()
	case tokenEnd:
		if len(r.open) == 1 {
			return false, fmt.Errorf("%w: more nodes end than begin", ErrTree)
		}
		r.open = r.open[:len(r.open)-1]
		return false, nil
	case tokenProperty:
		return false, r.propertyToken()
	case tokenNop:
		return false, nil
	case tokenLast:
		return true, nil
	}
	return false, fmt.Errorf("%w: token %d", ErrTree, t)
}

func (r *blobReader) begin() error {
	n := bytes.IndexByte(r.tokens, 0)
	if r.nodes++; n < 0 || r.nodes > maxTreeNodes || len(r.open) > maxTreeDepth {
		return fmt.Errorf("%w: node without an end, too many or too deep", ErrTree)
	}
	label, err := r.take(uint64(n) + 1)
	if err != nil {
		return err
	}
	node := &blobNode{label: string(label[:n])}
	parent := r.open[len(r.open)-1]
	parent.below = append(parent.below, node)
	r.open = append(r.open, node)
	return nil
}

func (r *blobReader) propertyToken() error {
	size, err := r.word()
	if err != nil {
		return err
	}
	at, err := r.word()
	if err != nil {
		return err
	}
	data, err := r.take(uint64(size))
	if err != nil {
		return err
	}
	if len(r.open) == 1 || uint64(at) >= uint64(len(r.names)) {
		return fmt.Errorf("%w: property without a node or a name", ErrTree)
	}
	name, _, ok := bytes.Cut(r.names[at:min(uint64(len(r.names)), uint64(at)+32)], []byte{0})
	if ok && kept(string(name)) {
		node := r.open[len(r.open)-1]
		if node.properties == nil {
			node.properties = map[string][]byte{}
		}
		node.properties[string(name)] = data
	}
	return nil
}

func (r *blobReader) word() (uint32, error) {
	p, err := r.take(4)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(p), nil
}

// take returns n bytes and steps over them to where the next token may begin.
func (r *blobReader) take(n uint64) ([]byte, error) {
	padded := (n + 3) &^ 3
	if padded > uint64(len(r.tokens)) {
		return nil, fmt.Errorf("%w: ends in the middle", ErrTree)
	}
	p := r.tokens[:n:n]
	r.tokens = r.tokens[padded:]
	return p, nil
}

// readAtMost reads all of r, which must not have more than n bytes. It never returns nil without an
// error.
func readAtMost(r io.Reader, n int64) ([]byte, error) {
	p, err := io.ReadAll(io.LimitReader(r, n+1))
	if err == nil && int64(len(p)) > n {
		err = fmt.Errorf("%w: more than %d bytes", ErrTree, n)
	}
	return p, err
}
