package rtnl

import (
	"bytes"
	"errors"
	"net/netip"
	"syscall"
	"testing"
)

func TestParseError(t *testing.T) {
	request := append(native.AppendUint32(nil, 20), make([]byte, 16)...) // header with its length, and 4 bytes of body
	body := native.AppendUint32(nil, ^uint32(syscall.EINVAL)+1)
	for _, c := range []struct {
		name  string
		m     message
		words string
	}{
		{"whole request", message{flags: 0x200, body: attribute(append(bytes.Clone(body), request...), 1, []byte("no gateway\x00"))}, "no gateway"},
		{"capped", message{flags: 0x300, body: attribute(append(bytes.Clone(body), request[:16]...), 1, []byte("no gateway\x00"))}, "no gateway"},
		{"no words", message{body: append(bytes.Clone(body), request...)}, ""},
		{"cut off", message{flags: 0x200, body: append(bytes.Clone(body), request[:16]...)}, ""},
	} {
		var e *Error
		if err := parseError(c.m); !errors.As(err, &e) || e.Errno != syscall.EINVAL || e.Message != c.words || !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := parseError(message{body: make([]byte, 20)}); err != nil {
		t.Errorf("an acknowledgement is an error: %v", err)
	}
	if err := parseError(message{body: make([]byte, 19)}); !errors.Is(err, errShort) {
		t.Errorf("short: %v", err)
	}
}

func TestBroadcast(t *testing.T) {
	for p, want := range map[string]string{"10.1.2.3/24": "10.1.2.255", "10.1.2.3/8": "10.255.255.255", "192.0.2.1/30": "192.0.2.3", "192.0.2.9/29": "192.0.2.15"} {
		if got := address(broadcast(netip.MustParsePrefix(p))); got != netip.MustParseAddr(want) {
			t.Errorf("%s: %s, want %s", p, got, want)
		}
	}
}

func TestAttributesRoundTrip(t *testing.T) {
	b := attribute(attribute32(attribute(nil, 1, []byte("abc")), 0x8002, 7), 3, nil)
	var got []string
	attributes(b, func(kind uint16, value []byte) { got = append(got, string(rune('0'+kind))+string(value)) })
	if len(got) != 3 || got[0] != "1abc" || number([]byte(got[1][1:])) != 7 || got[2] != "3" || len(b)%4 != 0 {
		t.Errorf("%q", got)
	}
}

// Whatever arrives: no panic, no endless loop, nothing read beyond the datagram (the race detector and bounds checks see to it).
func FuzzMessages(f *testing.F) {
	f.Add(append([]byte{36, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 20)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, _ := parseMessages(b)
		total := 0
		for _, m := range list {
			total += lenHeader + len(m.body)
			parseError(m)
			parseLink(m.body)
			if a := parseAddress(m.body); a != nil && !a.Prefix.IsValid() {
				t.Fatalf("invalid prefix %v", a.Prefix)
			}
			if r := parseRoute(m.body); r != nil && !r.Destination.IsValid() {
				t.Fatalf("invalid destination %v", r.Destination)
			}
		}
		if total > len(b) {
			t.Fatalf("%d bytes of messages in %d", total, len(b))
		}
	})
}
