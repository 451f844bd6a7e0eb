package service

import (
	"net"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"
)

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (a ) (b) S 7 42 42 0 -1 4194560 100 0"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := parseStat(data); err == nil && s.state == 0 {
			t.Error("no state and no error")
		}
	})
}

func FuzzParseCall(f *testing.F) {
	f.Add([]byte("running\n"))
	f.Add([]byte("-1 0x7ffc 0x7f\n"))
	f.Add([]byte("232 0x5 0x1 0x1 0 0 0 0x7 0x8\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := parseCall(data); err == nil && c.nr < callRunning {
			t.Errorf("number %d", c.nr)
		}
	})
}

func FuzzParseMessage(f *testing.F) {
	f.Add([]byte("READY=1\nSTATUS=x\nMAINPID=3\nWATCHDOG_USEC=99999999999999999999"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := parseMessage(data)
		if m.extend < 0 || m.watchdogEvery < 0 || m.mainPID < 0 || m.mainPID == 1 || len(m.status) > 3*256 {
			t.Errorf("%+v", m)
		}
	})
}

func FuzzListenInodes(f *testing.F) {
	f.Add([]byte("0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 0 0 4711 1"), uint16(8080))
	f.Fuzz(func(t *testing.T, data []byte, port uint16) { listenInodes(data, port) })
}

func FuzzLookupAccount(f *testing.F) {
	f.Add([]byte("root:x:0:0:root:/root:/bin/sh"), []byte("g:x:1:root"), "root", "g")
	f.Fuzz(func(t *testing.T, passwd, group []byte, user, g string) {
		etc := fstest.MapFS{"passwd": {Data: passwd}, "group": {Data: group}}
		if a, err := lookupAccount(etc, user, g, g); err == nil && (a.uid > maxID || a.gid > maxID || a.home == "") {
			t.Errorf("%+v", a)
		}
	})
}

func FuzzEventOn(f *testing.F) {
	f.Add([]byte("populated 1\nfrozen 0\n"))
	f.Fuzz(func(t *testing.T, data []byte) { eventOn(data, "frozen") })
}

func FuzzParseTarget(f *testing.F) {
	f.Add("http://127.0.0.1:8080/ready?x=1")
	f.Add("unix:/run/x.sock:/freeze")
	f.Add("http://[::1]?x=%20")
	f.Fuzz(func(t *testing.T, s string) {
		target, err := parseTarget(s)
		if err != nil {
			return
		}
		// Nothing that a configuration holds may become a second header or request.
		if got := strings.Count(target.request("GET"), "\n"); got != 6 {
			t.Errorf("%d lines in %q", got, target.request("GET"))
		}
		if target.Network == "unix" {
			return
		}
		// The standard library reads the same out of it.
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" || u.User != nil || u.Fragment != "" || u.Host != target.Host || u.RequestURI() != target.Path {
			t.Fatalf("%q: %+v, by net/url %+v, %v", s, target, u, err)
		}
		host, port, err := net.SplitHostPort(target.Address)
		if err != nil || host != u.Hostname() || u.Port() != "" && port != u.Port() {
			t.Errorf("%q: address %q", s, target.Address)
		}
	})
}

func FuzzParseStatus(f *testing.F) {
	f.Add("HTTP/1.1 204 No Content\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := parseStatus(s); err == nil && (n < 100 || n > 999) {
			t.Errorf("status %d", n)
		}
	})
}

// FuzzParseResponse: the body is the answer's end, and begins after an empty line.
func FuzzParseResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 503 Busy\r\nA: b\r\n\r\nlater\r\n\r\n"))
	f.Add([]byte("HTTP/1.0 200 OK\n\nx"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		code, body, err := parseResponse(answer)
		if err == nil && (code < 100 || code > 999) {
			t.Errorf("status %d", code)
		}
		if len(body) > 0 {
			head := strings.TrimSuffix(string(answer), string(body))
			if len(head)+len(body) != len(answer) || !strings.HasSuffix(head, "\n") {
				t.Errorf("%q: body %q", answer, body)
			}
		}
	})
}
