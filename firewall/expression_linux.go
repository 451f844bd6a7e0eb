package firewall

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// expression is one nftables expression (include/uapi/linux/netfilter/nf_tables.h).
// All of ours load into register 1 or look at it. The six kinds that the gate
// needs are written here: github.com/google/nftables knows fifty, and brings
// package net and 0.2 MB into the init. It is the tests' oracle.
type expression struct {
	name  string
	attrs []attr
}

// attr is one attribute of an expression: bytes, or other attributes.
type attr struct {
	typ  uint16
	data []byte
	nest []attr
	// listed marks what need not be sent, but is listed by kernels that know it.
	listed bool
}

// ctStateNew is NF_CT_STATE_BIT(IP_CT_NEW), include/uapi/linux/netfilter/nf_conntrack_common.h.
const ctStateNew = 8

// Verdicts: NF_DROP and NF_ACCEPT, include/uapi/linux/netfilter.h.
const (
	nfDrop   = 0
	nfAccept = 1
)

// nftaBitwiseOp is NFTA_BITWISE_OP, in the kernel since 5.6. Its zero is what
// all older ones do: NFT_BITWISE_BOOL, lately called NFT_BITWISE_MASK_XOR.
const nftaBitwiseOp = 6

// numbers is an expression of attributes that are numbers: pairs of type and value.
func numbers(name string, pairs ...uint32) expression {
	x := expression{name: name}
	for i := 0; i < len(pairs); i += 2 {
		x.add(number(uint16(pairs[i]), pairs[i+1]))
	}
	return x
}

func (x *expression) add(a attr) { x.attrs = append(x.attrs, a) }

func meta(key uint32) expression {
	return numbers("meta", unix.NFTA_META_KEY, key, unix.NFTA_META_DREG, 1)
}

func conntrack(key uint32) expression {
	return numbers("ct", unix.NFTA_CT_KEY, key, unix.NFTA_CT_DREG, 1)
}

func payload(base, offset, length uint32) expression {
	return numbers("payload", unix.NFTA_PAYLOAD_DREG, 1, unix.NFTA_PAYLOAD_BASE, base,
		unix.NFTA_PAYLOAD_OFFSET, offset, unix.NFTA_PAYLOAD_LEN, length)
}

// mask clears all bits but these.
func mask(bits []byte) expression {
	x := numbers("bitwise", unix.NFTA_BITWISE_SREG, 1, unix.NFTA_BITWISE_DREG, 1, unix.NFTA_BITWISE_LEN, uint32(len(bits)))
	x.add(value(unix.NFTA_BITWISE_MASK, bits))
	x.add(value(unix.NFTA_BITWISE_XOR, make([]byte, len(bits))))
	op := number(nftaBitwiseOp, 0)
	op.listed = true
	x.add(op)
	return x
}

func equal(want []byte) expression { return compare(unix.NFT_CMP_EQ, want) }

func compare(op uint32, want []byte) expression {
	x := numbers("cmp", unix.NFTA_CMP_SREG, 1, unix.NFTA_CMP_OP, op)
	x.add(value(unix.NFTA_CMP_DATA, want))
	return x
}

func verdict(accept bool) expression {
	code := uint32(nfDrop)
	if accept {
		code = nfAccept
	}
	x := numbers("immediate", unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
	x.add(nested(unix.NFTA_IMMEDIATE_DATA, nested(unix.NFTA_DATA_VERDICT, number(unix.NFTA_VERDICT_CODE, code))))
	return x
}

func nested(typ uint16, a attr) attr { return attr{typ: typ, nest: []attr{a}} }

func number(typ uint16, v uint32) attr {
	return attr{typ: typ, data: binary.BigEndian.AppendUint32(nil, v)}
}

// value is struct nft_data's: bytes as they stand in a register.
func value(typ uint16, b []byte) attr {
	return nested(typ, attr{typ: unix.NFTA_DATA_VALUE, data: b})
}

// expression writes what stands in one element of a rule's list.
func (e *encoder) expression(x expression) {
	e.str(unix.NFTA_EXPR_NAME, x.name)
	e.nest(unix.NFTA_EXPR_DATA, func() { e.tree(x.attrs) })
}

func (e *encoder) tree(attrs []attr) {
	for _, a := range attrs {
		switch {
		case a.listed:
		case a.nest != nil:
			e.nest(a.typ, func() { e.tree(a.nest) })
		default:
			e.attr(a.typ, a.data)
		}
	}
}

var errOther = errors.New("another expression")

// sameExpressions compares what the kernel lists of one rule. It lists
// attributes in its own order and without flags, so bytes will not do.
func sameExpressions(live []byte, want []expression) bool {
	i := 0
	err := attributes(live, func(_ uint16, elem []byte) error {
		if i >= len(want) || !sameExpression(elem, want[i]) {
			return errOther
		}
		i++
		return nil
	})
	return err == nil && i == len(want)
}

func sameExpression(elem []byte, want expression) bool {
	return cString(attribute(elem, unix.NFTA_EXPR_NAME)) == want.name &&
		sameAttributes(attribute(elem, unix.NFTA_EXPR_DATA), want.attrs)
}

// sameAttributes is strict: an attribute that we do not know may mean that the
// expression does something else.
func sameAttributes(live []byte, want []attr) bool {
	seen := make([]bool, len(want))
	err := attributes(live, func(typ uint16, data []byte) error {
		for i, w := range want {
			if w.typ == typ && w.same(data) {
				seen[i] = true
				return nil
			}
		}
		return errOther
	})
	for i, w := range want {
		if !seen[i] && !w.listed {
			return false
		}
	}
	return err == nil
}

func (a attr) same(live []byte) bool {
	if a.nest != nil {
		return sameAttributes(live, a.nest)
	}
	return bytes.Equal(live, a.data)
}
