package service

import (
	"bytes"
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// target is where an HTTP request goes: over TCP to host, or over a unix socket at path.
type target struct {
	network string // "tcp" or "unix"
	address string
	host    string // for the Host header
	path    string
}

// parseTarget reads "http://HOST:PORT/PATH" or "unix:/SOCKET:/PATH". TLS is not spoken: what asks for
// readiness is on the same machine.
func parseTarget(s string) (target, error) {
	t, why := target{network: "unix", host: "localhost"}, ""
	rest, ok := strings.CutPrefix(s, "unix:")
	if !ok {
		t, why = parseURL(s)
		return t, wrong("target", s, why)
	}
	t.address, t.path, _ = strings.Cut(rest, ":")
	setString(&t.path, "/")
	switch {
	case !strings.HasPrefix(t.address, "/"):
		why = "not unix:/SOCKET:/PATH"
	case t.path[0] != '/':
		why = "path does not begin with /"
	default:
		why = blank(t.path)
	}
	return t, wrong("target", s, why)
}

// parseURL reads as much of RFC 3986 as such a target may hold, and tells what is wrong with it, if so. Package net/url,
// with net to resolve names, is half a megabyte of the init; what rouse asks over TCP has an address, or is localhost.
func parseURL(s string) (t target, why string) {
	const scheme = "http://"
	if len(s) < len(scheme) || !strings.EqualFold(s[:len(scheme)], scheme) {
		return t, "not http://HOST:PORT/PATH or unix:/SOCKET:/PATH"
	}
	t = target{network: "tcp", host: s[len(scheme):], path: "/"}
	if i := strings.IndexAny(t.host, "/?#"); i >= 0 {
		t.host, t.path = t.host[:i], t.host[i:]
	}
	if t.path[0] == '?' {
		t.path = "/" + t.path
	}
	// An IPv6 address stays in its brackets.
	name, port := t.host, "80"
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, ']') {
		if name[i+1:] != "" {
			port = name[i+1:]
		}
		name = name[:i]
	}
	t.address = name + ":" + port
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return t, "port is not 1 to 65535"
	}
	if _, err := addressesOf(name); err != nil {
		return t, err.Error()
	}
	if why = blank(t.host); why == "" {
		why = checkPath(t.path)
	}
	return t, why
}

// addressesOf gives the addresses of a host in the order in which they are tried.
func addressesOf(host string) ([]netip.Addr, error) {
	if strings.EqualFold(host, "localhost") { // RFC 6761, section 6.3
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	inner, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		inner, bracketed = strings.CutSuffix(inner, "]")
	}
	a, err := netip.ParseAddr(inner)
	if err != nil || a.Is6() != bracketed || a.Zone() != "" {
		return nil, wrong("host", host, "no IP address and not localhost")
	}
	return []netip.Addr{a}, nil
}

// checkPath tells what would not stand for itself in a request.
func checkPath(path string) string {
	for i, c := range []byte(path) {
		switch {
		case c > 0x7f || strings.IndexByte("\"#<>\\^`{|}", c) >= 0:
			return "what is not plain in a path has to be written as %XX"
		case c == '%' && !escaped(path[i:]):
			return "% without two hexadecimal digits"
		}
	}
	return blank(path)
}

func escaped(s string) bool {
	const digits = "0123456789abcdefABCDEF"
	return len(s) > 2 && strings.IndexByte(digits, s[1]) >= 0 && strings.IndexByte(digits, s[2]) >= 0
}

func blank(s string) string {
	for _, c := range []byte(s) {
		if c <= ' ' || c == 0x7f {
			return "blank or control character"
		}
	}
	return ""
}

// request is HTTP/1.1 with as little as RFC 9112 asks for. The body is empty.
func (t target) request(method string) string {
	return method + " " + t.path + " HTTP/1.1\r\nHost: " + t.host +
		"\r\nUser-Agent: rouse\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
}

// parseResponse gives the status and the beginning of the body. A status without more is answer enough.
func parseResponse(answer []byte) (int, []byte, error) {
	line, rest, _ := bytes.Cut(answer, []byte("\n"))
	code, err := parseStatus(string(line))
	for len(rest) > 0 { // headers, to the empty line
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		if len(line) == 0 || line[0] == '\r' {
			return code, rest, err
		}
	}
	return code, nil, err
}

// parseStatus reads the status line of an answer (RFC 9112, 4).
func parseStatus(line string) (int, error) {
	version, rest, ok := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
	code, _, _ := strings.Cut(rest, " ")
	if !ok || !strings.HasPrefix(version, "HTTP/1.") || len(code) != 3 {
		return 0, errors.New("answer is not HTTP/1")
	}
	n, err := strconv.Atoi(code)
	if err != nil || n < 100 {
		return 0, errors.New("answer has no status")
	}
	return n, nil
}
