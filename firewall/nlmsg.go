package firewall

import (
	"encoding/binary"
	"errors"

	"rouse/internal/fmt"
)

// Netlink's framing (include/uapi/linux/netlink.h), as far as the gate needs
// it. Messages are built once, when the gate is made, and sent as they are: a
// resumed clone shuts its gate with one write of bytes it already holds. The
// libraries build theirs anew for every call and read answers through
// goroutines, which is right for a tool and too much for this path.
const (
	nlHeader    = 16
	nlAttrHead  = 4
	nlAttrMask  = 0x3fff // NLA_TYPE_MASK: without NLA_F_NESTED and NLA_F_NET_BYTEORDER
	nlNested    = 1 << 15
	nlmsgError  = 2
	nlmsgDone   = 3
	nlmsgMinUse = 16 // NLMSG_MIN_TYPE: types below are control messages
)

var errShort = errors.New("netlink message cut short")

func align4(n int) int { return (n + 3) &^ 3 }

// encoder builds netlink messages one after another in one buffer.
type encoder struct {
	b     []byte
	start int // of the message being built
}

// message ends the one before and begins another. The kernel's structs are in
// the order of the host's bytes; every other number says for itself.
func (e *encoder) message(typ uint16, flags uint16, seq uint32, head []byte) {
	e.finish()
	e.start = len(e.b)
	e.b = append(e.b, 0, 0, 0, 0)
	e.b = binary.NativeEndian.AppendUint16(e.b, typ)
	e.b = binary.NativeEndian.AppendUint16(e.b, flags)
	e.b = binary.NativeEndian.AppendUint32(e.b, seq)
	e.b = append(e.b, 0, 0, 0, 0)
	e.b = append(e.b, head...)
	e.pad()
}

// finish writes the length of the last message.
func (e *encoder) finish() []byte {
	if len(e.b) > e.start {
		binary.NativeEndian.PutUint32(e.b[e.start:], uint32(len(e.b)-e.start))
	}
	return e.b
}

func (e *encoder) attr(typ uint16, data []byte) {
	e.b = binary.NativeEndian.AppendUint16(e.b, uint16(nlAttrHead+len(data)))
	e.b = binary.NativeEndian.AppendUint16(e.b, typ)
	e.b = append(e.b, data...)
	e.pad()
}

func (e *encoder) str(typ uint16, s string) {
	e.b = binary.NativeEndian.AppendUint16(e.b, uint16(nlAttrHead+len(s)+1))
	e.b = binary.NativeEndian.AppendUint16(e.b, typ)
	e.b = append(append(e.b, s...), 0)
	e.pad()
}

// be32 is nf_tables' order of bytes; u32 is rtnetlink's.
func (e *encoder) be32(typ uint16, v uint32) { e.attr(typ, binary.BigEndian.AppendUint32(nil, v)) }
func (e *encoder) u32(typ uint16, v uint32)  { e.attr(typ, binary.NativeEndian.AppendUint32(nil, v)) }

// nest puts what fill writes into one attribute.
func (e *encoder) nest(typ uint16, fill func()) {
	at := len(e.b)
	e.attr(typ|nlNested, nil)
	fill()
	binary.NativeEndian.PutUint16(e.b[at:], uint16(len(e.b)-at))
}

func (e *encoder) pad() {
	for len(e.b)%4 != 0 {
		e.b = append(e.b, 0)
	}
}

// message is one answer, its data still inside the buffer it was read into.
type message struct {
	typ, flags uint16
	seq        uint32
	data       []byte
}

// messages calls each for every message in b.
func messages(b []byte, each func(message) error) error {
	for len(b) > 0 {
		if len(b) < nlHeader {
			return errShort
		}
		n := int(binary.NativeEndian.Uint32(b))
		if n < nlHeader || n > len(b) {
			return fmt.Errorf("message of %d bytes in %d: %w", n, len(b), errShort)
		}
		m := message{
			typ:   binary.NativeEndian.Uint16(b[4:]),
			flags: binary.NativeEndian.Uint16(b[6:]),
			seq:   binary.NativeEndian.Uint32(b[8:]),
			data:  b[nlHeader:n],
		}
		if err := each(m); err != nil {
			return err
		}
		b = b[min(align4(n), len(b)):]
	}
	return nil
}

// attributes calls each for every attribute in b.
func attributes(b []byte, each func(typ uint16, data []byte) error) error {
	for len(b) > 0 {
		if len(b) < nlAttrHead {
			return errShort
		}
		n := int(binary.NativeEndian.Uint16(b))
		if n < nlAttrHead || n > len(b) {
			return fmt.Errorf("attribute of %d bytes in %d: %w", n, len(b), errShort)
		}
		if err := each(binary.NativeEndian.Uint16(b[2:])&nlAttrMask, b[nlAttrHead:n]); err != nil {
			return err
		}
		b = b[min(align4(n), len(b)):]
	}
	return nil
}

// attribute finds one attribute after a message's fixed head; nil if absent.
func attribute(b []byte, typ uint16) []byte {
	var found []byte
	_ = attributes(b, func(t uint16, data []byte) error {
		if t == typ && found == nil {
			found = data
		}
		return nil
	})
	return found
}

// cString is a string attribute without its zero byte.
func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// beUint32 reads a number of nf_tables; ok is false if it has another size.
func beUint32(b []byte) (v uint32, ok bool) {
	if len(b) != 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(b), true
}
