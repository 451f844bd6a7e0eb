package rootfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var testMAC = hardware{2, 0, 0, 0, 0, 9}

// answer4 is a server's message with raw options.
func answer4(query []byte, kind byte, own string, options ...[]byte) []byte {
	b := append([]byte(nil), query[:dhcpFixed]...)
	b[0] = 2
	copy(b[16:], netip.MustParseAddr(own).AsSlice())
	b = append(b, optKind, 1, kind)
	for _, o := range options {
		b = append(append(b, o[0], byte(len(o)-1)), o[1:]...)
	}
	return append(b, optEnd)
}

func usual(more ...[]byte) [][]byte {
	return append([][]byte{{optServer, 192, 0, 2, 1}, {optMask, 255, 255, 255, 0}, {optRouter, 192, 0, 2, 1}, {optLease, 0, 0, 14, 16}}, more...)
}

func TestParseDHCP(t *testing.T) {
	q := (&dhcpQuery{kind: dhcpDiscover, xid: 7, mac: testMAC}).bytes()
	long := append([]byte{optDomain}, bytes.Repeat([]byte("a"), 80)...)
	for _, tt := range []struct {
		name, own string
		options   [][]byte
		want      string // "": refused
	}{
		{"usual", "192.0.2.9", usual(), "192.0.2.9/24 192.0.2.1 [] [] [] - 0 1h0m0s 30m0s"},
		{"names", "192.0.2.9", usual([]byte{optDNS, 192, 0, 2, 53, 192, 0, 2, 54}, append([]byte{optDomain}, "a.test b.test"...), append([]byte{optHostname}, "web"...)),
			"192.0.2.9/24 192.0.2.1 [] [192.0.2.53 192.0.2.54] [a.test b.test] web- 0 1h0m0s 30m0s"},
		{"names that would be more", "192.0.2.9", usual(append([]byte{optHostname}, "web\nroot"...), append([]byte{optDomain}, "a\x00b"...), long),
			"192.0.2.9/24 192.0.2.1 [] [] [] - 0 1h0m0s 30m0s"},
		{"classless", "192.0.2.9", usual([]byte{optRoutes, 24, 198, 51, 100, 192, 0, 2, 2, 0, 192, 0, 2, 3, 32, 203, 0}, []byte{optRoutes, 113, 7, 0, 0, 0, 0}),
			"192.0.2.9/24 192.0.2.3 [{198.51.100.0/24 192.0.2.2 0} {203.0.113.7/32 invalid IP 0}] [] [] - 0 1h0m0s 30m0s"},
		{"classless broken", "192.0.2.9", usual([]byte{optRoutes, 33, 1, 2, 3}), "192.0.2.9/24 invalid IP [] [] [] - 0 1h0m0s 30m0s"},
		{"small mtu", "192.0.2.9", usual([]byte{optMTU, 0, 68}), "192.0.2.9/24 192.0.2.1 [] [] [] - 0 1h0m0s 30m0s"},
		{"times", "192.0.2.9", usual([]byte{optT1, 0, 0, 0, 60}, []byte{optMTU, 5, 120}), "192.0.2.9/24 192.0.2.1 [] [] [] - 1400 1h0m0s 1m0s"},
		{"times mad", "192.0.2.9", usual([]byte{optT1, 255, 0, 0, 60}), "192.0.2.9/24 192.0.2.1 [] [] [] - 0 1h0m0s 30m0s"},
		{"for a moment", "192.0.2.9", [][]byte{{optServer, 192, 0, 2, 1}, {optLease, 0, 0, 0, 1}}, "192.0.2.9/24 invalid IP [] [] [] - 0 1m0s 30s"},
		{"forever", "192.0.2.9", [][]byte{{optServer, 192, 0, 2, 1}, {optLease, 255, 255, 255, 255}}, fmt.Sprint("192.0.2.9/24 invalid IP [] [] [] - 0 ", forever, " ", forever/2)},
		{"no server", "192.0.2.9", [][]byte{{optMask, 255, 255, 255, 0}}, ""},
		{"mask with a hole", "10.0.2.9", usual([]byte{optMask, 255}), "10.0.2.9/8 192.0.2.1 [] [] [] - 0 1h0m0s 30m0s"},
		{"zero", "0.0.0.0", usual(), ""},
		{"loopback", "127.0.0.1", usual(), ""},
		{"multicast", "224.0.0.1", usual(), ""},
		{"broadcast", "255.255.255.255", usual(), ""},
	} {
		kind, l := parseDHCP(answer4(q, dhcpOffer, tt.own, tt.options...), 7, testMAC)
		got := ""
		if l != nil && kind == dhcpOffer {
			got = fmt.Sprint(l.Address, " ", l.Gateway4, " ", l.Routes, " ", l.DNS, " ", l.Search, " ", l.Hostname, "- ", l.MTU, " ", l.Valid, " ", l.T1)
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	for name, b := range map[string][]byte{"own question": q, "other transaction": answer4((&dhcpQuery{xid: 8, mac: testMAC}).bytes(), dhcpOffer, "192.0.2.9", usual()...),
		"other client": answer4((&dhcpQuery{xid: 7}).bytes(), dhcpOffer, "192.0.2.9", usual()...), "empty": nil} {
		if _, l := parseDHCP(b, 7, testMAC); l != nil {
			t.Errorf("%s: believed", name)
		}
	}
}

// Options may go on in the fields of the server's name and the boot file (RFC 2132, section 9.3).
func TestParseDHCPOverload(t *testing.T) {
	b := answer4((&dhcpQuery{xid: 7, mac: testMAC}).bytes(), dhcpAck, "192.0.2.9", []byte{optOverload, 3})
	copy(b[108:], []byte{optServer, 4, 192, 0, 2, 1, optEnd})
	copy(b[44:], []byte{0, 0, optMask, 4, 255, 255, 0, 0, optEnd})
	kind, l := parseDHCP(b, 7, testMAC)
	if l == nil || kind != dhcpAck || l.Address.Bits() != 16 {
		t.Errorf("%d %+v", kind, l)
	}
}

func TestDHCPFrame(t *testing.T) {
	payload := (&dhcpQuery{kind: dhcpDiscover, xid: 7, mac: testMAC}).bytes()
	f := dhcpFrame(testMAC, netip.Addr{}, payload)
	if _, ok := dhcpPayload(f); ok {
		t.Error("a question to the server is taken for an answer")
	}
	binary.BigEndian.PutUint16(f[etherLen+ip4Len+2:], portClient)
	if b, ok := dhcpPayload(append(f, 0, 0)); !ok || !bytes.Equal(b, payload) { // Ethernet pads
		t.Errorf("%v %x", ok, b)
	}
	for at, name := range map[int]string{etherLen + 8: "header's sum", etherLen + 9: "protocol", etherLen + 6: "fragment", etherLen: "version", etherLen + ip4Len + 5: "length"} {
		g := append([]byte(nil), f...)
		g[at] ^= 0xff
		if _, ok := dhcpPayload(g); ok {
			t.Errorf("broken %s: taken", name)
		}
	}
}

// lan is a wire with a server's program behind it, on a clock of its own.
type lan struct {
	serve   func(query []byte) [][]byte
	pending [][]byte
	sent    []byte // kinds, in order
	flood   []byte // without end
}

func (w *lan) send(b []byte) error {
	w.sent = append(w.sent, b[dhcpFixed+2])
	w.pending = append(w.pending, w.serve(b)...)
	return errors.New("no carrier") // must not matter
}

func (w *lan) receive(until time.Time) ([]byte, error) {
	if len(w.pending) > 0 {
		b := w.pending[0]
		w.pending = w.pending[1:]
		return b, nil
	}
	if w.flood != nil {
		return w.flood, nil
	}
	time.Sleep(time.Until(until))
	return nil, os.ErrDeadlineExceeded
}

func TestAcquire(t *testing.T) {
	good := func(b []byte) [][]byte {
		kind := byte(dhcpOffer)
		if b[dhcpFixed+2] == dhcpRequest {
			kind = dhcpAck
		}
		return [][]byte{{1, 2, 3}, answer4(b, kind, "192.0.2.9", usual()...)}
	}
	times := 0
	for _, tt := range []struct {
		name  string
		serve func([]byte) [][]byte
		least int // questions
		want  string
	}{
		{"good", good, 2, "192.0.2.9/24"},
		{"silent, then good", func(b []byte) [][]byte {
			if times++; times < 6 {
				return nil
			}
			return good(b)
		}, 7, "192.0.2.9/24"},
		{"silent", func([]byte) [][]byte { return nil }, 10, ""},
		{"offers only", func(b []byte) [][]byte {
			if b[dhcpFixed+2] == dhcpRequest {
				return nil
			}
			return good(b)
		}, 10, ""},
		{"always refuses", func(b []byte) [][]byte {
			if b[dhcpFixed+2] == dhcpRequest {
				return [][]byte{answer4(b, dhcpNak, "0.0.0.0", []byte{optServer, 192, 0, 2, 1})}
			}
			return good(b)
		}, 10, ""},
		{"refused by a stranger", func(b []byte) [][]byte {
			if b[dhcpFixed+2] == dhcpRequest {
				return [][]byte{answer4(b, dhcpNak, "0.0.0.0", []byte{optServer, 192, 0, 2, 66}), good(b)[1]}
			}
			return good(b)
		}, 2, "192.0.2.9/24"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &lan{serve: tt.serve}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				got := ""
				var err error
				for try := 0; got == "" && ctx.Err() == nil; try++ { // as keeper.run does
					var l *Lease
					if l, err = (&dhcpClient{wire: w, mac: testMAC}).acquire(ctx, time.Now().Add(time.Hour)); err == nil {
						got = l.Address.String()
					} else {
						sleep(ctx, backoff(try))
					}
				}
				// An hour of asking in vain is a question a minute, not a storm.
				if got != tt.want || len(w.sent) < tt.least || len(w.sent) > 600 {
					t.Errorf("%s after %d questions, %v", got, len(w.sent), err)
				}
			})
		})
	}
}

// A link full of rubbish costs a bounded number of looks for each question.
func TestAcquireInNoise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &lan{serve: func([]byte) [][]byte { return nil }, flood: make([]byte, 300)}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := (&dhcpClient{wire: w, mac: testMAC}).acquire(ctx, time.Now().Add(2*time.Hour)); !errors.Is(err, context.DeadlineExceeded) || len(w.sent) > 100 {
			t.Errorf("%d questions, %v", len(w.sent), err)
		}
	})
}

func TestProlong(t *testing.T) {
	l := &Lease{Address: netip.MustParsePrefix("192.0.2.9/24"), Server: netip.MustParseAddr("192.0.2.1")}
	for _, tt := range []struct {
		name  string
		serve func([]byte) [][]byte
		want  error
	}{
		{"yes", func(b []byte) [][]byte { return [][]byte{answer4(b, dhcpAck, "192.0.2.9", usual()...)} }, nil},
		{"no", func(b []byte) [][]byte {
			return [][]byte{answer4(b, dhcpNak, "0.0.0.0", []byte{optServer, 192, 0, 2, 1})}
		}, errRefused},
		{"another address", func(b []byte) [][]byte { return [][]byte{answer4(b, dhcpAck, "192.0.2.10", usual()...)} }, errRefused},
		{"silence", func(b []byte) [][]byte { return nil }, os.ErrDeadlineExceeded},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := &lan{serve: func(b []byte) [][]byte {
				if string(b[12:16]) != "\xc0\x00\x02\x09" || strings.Contains(string(b[dhcpFixed:]), string([]byte{optServer, 4})) {
					t.Errorf("%s: a renewal names its address and no server", tt.name)
				}
				return tt.serve(b)
			}}
			_, err := (&dhcpClient{wire: w, mac: testMAC}).prolong(t.Context(), l, time.Now().Add(time.Minute))
			if !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
			}
		})
	}
}

func answer6(q []byte, kind byte, ia []byte, more ...byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(kind)<<24|binary.BigEndian.Uint32(q)&0xffffff)
	b = option6(b, v6ClientID, append([]byte{0, 3, 0, 1}, testMAC[:]...))
	b = option6(b, v6ServerID, []byte{0, 3, 0, 1, 2, 0, 0, 0, 0, 1})
	if ia != nil {
		b = option6(b, v6IANA, ia)
	}
	return append(b, more...)
}

func association(address string, valid uint32, status ...byte) []byte {
	ia := []byte{0, 0, 0, 1, 0, 0, 0, 100, 0, 0, 0, 200}
	if address != "" {
		ia = option6(ia, v6IAAddr, binary.BigEndian.AppendUint32(append(netip.MustParseAddr(address).AsSlice(), 0, 0, 0, 1), valid))
	}
	if len(status) > 0 {
		ia = option6(ia, v6Status, status)
	}
	return ia
}

func TestParseDHCP6(t *testing.T) {
	q := (&dhcp6Query{kind: v6Solicit, xid: 0xabcdef, mac: testMAC, address: true}).bytes()
	dns := option6(nil, v6DNS, netip.MustParseAddr("2001:db8::53").AsSlice())
	domains := option6(nil, v6Domains, []byte("\x01a\x04test\x00\x03b\n.\x00\x40"))
	for _, tt := range []struct {
		name   string
		answer []byte
		want   string
	}{
		{"lends", answer6(q, v6Advertise, association("2001:db8::9", 3600), append(dns, domains...)...), "2 2001:db8::9/128 [2001:db8::53] [a.test] 1h0m0s 1m40s true"},
		{"none left", answer6(q, v6Advertise, association("", 0, 0, 2)), "2 invalid Prefix [] [] 24h0m0s 12h0m0s false"},
		{"over already", answer6(q, v6Reply, association("2001:db8::9", 0)), "7 invalid Prefix [] [] 24h0m0s 12h0m0s false"},
		{"loopback", answer6(q, v6Reply, association("::1", 3600)), "7 invalid Prefix [] [] 24h0m0s 12h0m0s false"},
		{"link-local", answer6(q, v6Reply, association("fe80::1", 3600)), "7 invalid Prefix [] [] 24h0m0s 12h0m0s false"},
		{"mapped", answer6(q, v6Reply, association("::ffff:192.0.2.9", 3600)), "7 invalid Prefix [] [] 24h0m0s 12h0m0s false"},
		{"other association", answer6(q, v6Reply, append([]byte{9}, association("2001:db8::9", 3600)[1:]...)), "7 invalid Prefix [] [] 24h0m0s 12h0m0s false"},
		{"other transaction", answer6([]byte{0, 1, 2, 3}, v6Reply, association("2001:db8::9", 3600)), ""},
		{"a question", answer6(q, v6Solicit, nil), ""},
		{"empty", nil, ""},
	} {
		a := parseDHCP6(tt.answer, 0xabcdef, testMAC)
		got := ""
		if a != nil {
			got = fmt.Sprint(a.kind, " ", a.lease.Address, " ", a.lease.DNS, " ", a.lease.Search, " ", a.lease.Valid, " ", a.lease.T1, " ", a.lends())
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestRouterOption(t *testing.T) {
	var l Lease
	rdnss := append([]byte{raRDNSS, 3, 0, 0, 0, 0, 2, 88}, netip.MustParseAddr("2001:db8::53").AsSlice()...)
	l.parseRouterOption(rdnss)
	l.parseRouterOption(rdnss)
	l.parseRouterOption(append([]byte{raDNSSL, 2, 0, 0, 0, 0, 2, 88}, "\x03six\x00\x00\x00\x00"...))
	rdnss[7], rdnss[6], rdnss[23] = 0, 0, 54 // without life
	l.parseRouterOption(rdnss)
	for n := range rdnss {
		l.parseRouterOption(rdnss[:n])
	}
	if got := fmt.Sprint(l.DNS, l.Search); got != "[2001:db8::53] [six]" {
		t.Errorf("%s", got)
	}
}

// believable is what must hold of anything that a parser gives away, whatever the bytes were.
func believable(t *testing.T, l *Lease) {
	t.Helper()
	if r := (Resolver{Servers: l.DNS, Search: l.Search}).String(); strings.Count(r, "\n") > mostDNS+1 {
		t.Errorf("resolv.conf %q", r)
	}
	if l.Hostname != "" && CheckHostname(l.Hostname) != nil || len(l.Routes) > mostRoutes || len(l.Search) > mostSearch {
		t.Errorf("lease %+v", l)
	}
	if l.Address.IsValid() && (l.T1 < shortest/4 || l.Valid < shortest || (&Interface{Addresses: []netip.Prefix{l.Address}}).Validate() != nil) {
		t.Errorf("lease %+v", l)
	}
}

func FuzzDHCP4(f *testing.F) {
	q := (&dhcpQuery{kind: dhcpDiscover, xid: 7, mac: testMAC}).bytes()
	f.Add(answer4(q, dhcpOffer, "192.0.2.9", usual([]byte{optRoutes, 24, 198, 51, 100, 192, 0, 2, 2}, []byte{optOverload, 3}, []byte{optDNS, 1, 2, 3, 4})...)[dhcpFixed:], []byte{192, 0, 2, 9})
	f.Add([]byte{optKind, 1, dhcpNak, 0, 0, optServer, 4, 1, 2, 3}, []byte{1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, options, own []byte) {
		b := append([]byte(nil), q[:dhcpFixed]...)
		b[0] = 2
		copy(b[16:20], own)
		if kind, l := parseDHCP(append(b, options...), 7, testMAC); l != nil && kind != dhcpNak {
			believable(t, l)
		}
		if b, ok := dhcpPayload(options); ok && len(b) > len(options)-etherLen-ip4Len-udpLen {
			t.Errorf("%d bytes of %d", len(b), len(options))
		}
	})
}

func FuzzDHCP6(f *testing.F) {
	q := (&dhcp6Query{kind: v6Solicit, xid: 7, mac: testMAC, address: true}).bytes()
	f.Add(answer6(q, v6Reply, association("2001:db8::9", 3600), option6(nil, v6Domains, []byte("\x01a\x00"))...)[4:])
	f.Add(append([]byte{raRDNSS, 3, 0, 0, 0, 0, 2, 88}, netip.MustParseAddr("2001:db8::53").AsSlice()...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a := parseDHCP6(append([]byte{v6Reply, 0, 0, 7}, b...), 7, testMAC); a != nil {
			believable(t, &a.lease)
		}
		var l Lease
		l.parseRouterOption(b)
		believable(t, &l)
	})
}

func TestParseHTTP(t *testing.T) {
	for _, tt := range []struct {
		text string
		eof  bool
		want string
	}{
		{"HTTP/1.1 200 \r\nServer: Firecracker API\r\nContent-Length: 5\r\n\r\ntoken", false, "200 token false"},
		{"HTTP/1.1 200 OK\r\ncontent-length:5\r\n\r\ntokenmore", false, "200 token false"},
		{"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", false, "404  false"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntok", false, "0  true"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntok", true, "0  false"},
		{"HTTP/1.1 200 OK\r\n\r\ntok", false, "0  true"},
		{"HTTP/1.0 200 OK\r\n\r\ntok", true, "200 tok false"},
		{"HTTP/1.1 200 OK\r\nContent-Len", false, "0  true"},
		{"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", false, "0  false"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", false, "0  false"},
		{"SSH-2.0-x\r\n\r\n", false, "0  false"},
		{"", true, "0  false"},
	} {
		status, body, more := parseHTTP([]byte(tt.text), tt.eof)
		if got := fmt.Sprintf("%d %s %v", status, body, more); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.text, got, tt.want)
		}
	}
}

func FuzzHTTP(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntoken"))
	f.Fuzz(func(t *testing.T, b []byte) {
		status, body, more := parseHTTP(b, true)
		if more || len(body) > len(b) || status < 0 || status > 999 {
			t.Errorf("%d, %d bytes, %v", status, len(body), more)
		}
	})
}
