package acpi

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"rouse/internal/fmt"
)

// toInteger converts implicitly (ACPI 6.5, 19.3.5.3): a string is read as hexadecimal up to the first
// character that is no digit, of a buffer the first four or eight bytes count.
func (m *machine) toInteger(v value) (uint64, error) {
	switch v := v.(type) {
	case uint64:
		return m.integer(v), nil
	case *blob:
		if v.text {
			return m.hexadecimal(v.data), nil
		}
		if len(v.data) == 0 {
			return 0, fmt.Errorf("%w: empty buffer, not an integer", errType)
		}
		return little(v.data[:min(len(v.data), m.width()/8)]), nil
	}
	return 0, typeError(v, "an integer")
}

// hexadecimal reads leading digits; those beyond the width of an integer are ignored.
func (m *machine) hexadecimal(s []byte) uint64 {
	s = bytes.TrimLeft(s, " \t\n\v\f\r")
	if len(s) > 2 && s[0] == '0' && s[1]|0x20 == 'x' {
		s = s[2:]
	}
	s = bytes.TrimLeft(s, "0")
	var n uint64
	for i := 0; i < len(s) && i < m.width()/4; i++ {
		d, ok := digit(s[i])
		if !ok {
			break
		}
		n = n<<4 | uint64(d)
	}
	return n
}

func digit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

// toBuffer converts implicitly and for ToBuffer: an integer becomes four or eight bytes, a string
// gets its NUL back. The result may be v itself.
func (m *machine) toBuffer(v value) (*blob, error) {
	switch v := v.(type) {
	case uint64:
		var raw [8]byte
		binary.LittleEndian.PutUint64(raw[:], v)
		return m.newBlob(raw[:m.width()/8], false)
	case *blob:
		if !v.text {
			return v, nil
		}
		if err := m.alloc(blobSize + len(v.data) + 1); err != nil {
			return nil, err
		}
		return &blob{data: append(append(make([]byte, 0, len(v.data)+1), v.data...), 0)}, nil
	}
	return nil, typeError(v, "a buffer")
}

// toText converts implicitly: integers become all their hexadecimal digits, bytes of a buffer 0x and
// two digits each with spaces between. The result may be v itself.
func (m *machine) toText(v value) (*blob, error) {
	switch v := v.(type) {
	case uint64:
		return m.newText(fmt.Sprintf("%0*X", m.width()/4, v))
	case *blob:
		if v.text {
			return v, nil
		}
		return m.join(v.data, " ", "0x%02X")
	}
	return nil, typeError(v, "a string")
}

func (m *machine) newText(s string) (*blob, error) { return m.newBlob([]byte(s), true) }

// join renders each byte of a buffer.
func (m *machine) join(data []byte, separator, format string) (*blob, error) {
	if err := m.alloc(blobSize + 8*len(data)); err != nil {
		return nil, err
	}
	if err := m.step(len(data)); err != nil {
		return nil, err
	}
	var out []byte
	for i, b := range data {
		if i > 0 {
			out = append(out, separator...)
		}
		out = fmt.Appendf(out, format, b)
	}
	return &blob{data: out, text: true}, nil
}

// toHexString and toDecimalString are the operators of those names.
func (m *machine) toHexString(v value) (*blob, error) {
	if b, ok := v.(*blob); ok && !b.text {
		return m.join(b.data, ",", "0x%02X")
	}
	return m.toText(v)
}

func (m *machine) toDecimalString(v value) (*blob, error) {
	switch v := v.(type) {
	case uint64:
		return m.newText(strconv.FormatUint(v, 10))
	case *blob:
		if !v.text {
			return m.join(v.data, ",", "%d")
		}
	}
	return m.toText(v)
}

// parseInteger is the ToInteger operator, which reads strings as decimal unless they begin with 0x.
func (m *machine) parseInteger(v value) (uint64, error) {
	b, ok := v.(*blob)
	if !ok || !b.text {
		return m.toInteger(v)
	}
	s := bytes.TrimLeft(b.data, " \t\n\v\f\r")
	if len(s) > 2 && s[0] == '0' && s[1]|0x20 == 'x' {
		return m.hexadecimal(s), nil
	}
	return m.decimal(s), nil
}

// decimal reads leading digits as far as they make a number that fits.
func (m *machine) decimal(s []byte) uint64 {
	limit := m.integer(^uint64(0))
	var n uint64
	for _, c := range s {
		d := uint64(c - '0')
		if c < '0' || c > '9' || n > (limit-d)/10 {
			break
		}
		n = n*10 + d
	}
	return n
}

// eisaID decodes a compressed id: three letters of five bits, most significant first, and four
// hexadecimal digits, the whole byte-swapped (ACPI 6.5, 19.6.36).
func eisaID(v uint64) string {
	var raw [4]byte
	binary.LittleEndian.PutUint32(raw[:], uint32(v))
	w := binary.BigEndian.Uint32(raw[:])
	letter := func(shift int) byte { return '@' + byte(w>>shift&0x1f) }
	return fmt.Sprintf("%c%c%c%04X", letter(26), letter(21), letter(16), w&0xffff)
}
