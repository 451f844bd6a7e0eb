package firewall

import (
	"bytes"
	"testing"
)

// FuzzMessages holds the parser to: no panic, no data from outside its input,
// and every message and attribute no longer than what is left.
func FuzzMessages(f *testing.F) {
	e := &encoder{}
	e.message(0xa00, 1, 7, []byte{1, 0, 0, 10})
	e.str(1, "rouse")
	e.nest(4, func() { e.be32(1, 3); e.u32(2, 4) })
	e.message(2, 0, 8, []byte{0, 0, 0, 0})
	f.Add(e.finish())
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		_ = messages(b, func(m message) error {
			total += nlHeader + len(m.data)
			return attributes(m.data, func(_ uint16, data []byte) error {
				if len(data) > len(m.data) {
					t.Fatal("attribute is longer than its message")
				}
				attribute(data, 1)
				return nil
			})
		})
		if total > len(b) {
			t.Fatalf("messages of %d bytes in %d", total, len(b))
		}
	})
}

func TestEncoderRoundTrip(t *testing.T) {
	e := &encoder{}
	e.message(0xa07, 5, 1, []byte{9, 9, 9, 9})
	e.str(1, "abc")
	e.nest(2, func() { e.be32(3, 0x01020304) })
	e.message(0xa08, 6, 2, nil)
	var seen []message
	if err := messages(e.finish(), func(m message) error { seen = append(seen, m); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 2 || seen[0].typ != 0xa07 || seen[1].seq != 2 || seen[1].flags != 6 {
		t.Fatalf("messages %+v", seen)
	}
	body := seen[0].data[4:]
	if got := cString(attribute(body, 1)); got != "abc" {
		t.Errorf("string %q", got)
	}
	if got := attribute(attribute(body, 2), 3); !bytes.Equal(got, []byte{1, 2, 3, 4}) {
		t.Errorf("nested %x", got)
	}
	if attribute(body, 5) != nil {
		t.Error("an attribute that is not there")
	}
}
