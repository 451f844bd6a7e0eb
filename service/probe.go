package service

import (
	"errors"
	"fmt"
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
	if rest, ok := strings.CutPrefix(s, "unix:"); ok {
		sock, path, _ := strings.Cut(rest, ":")
		if !strings.HasPrefix(sock, "/") {
			return target{}, fmt.Errorf("target %q: not unix:/SOCKET:/PATH", s)
		}
		return checkTarget(s, target{network: "unix", address: sock, host: "localhost", path: path})
	}
	return parseURL(s)
}

// parseURL reads as much of RFC 3986 as such a target may hold. Package net/url, with net to resolve names, is
// half a megabyte of the init; what rouse asks over TCP has an address, or is localhost.
func parseURL(s string) (target, error) {
	const scheme = "http://"
	if len(s) < len(scheme) || !strings.EqualFold(s[:len(scheme)], scheme) {
		return target{}, fmt.Errorf("target %q: not http://HOST:PORT/PATH or unix:/SOCKET:/PATH", s)
	}
	host, path := s[len(scheme):], "/"
	if i := strings.IndexAny(host, "/?#"); i >= 0 {
		host, path = host[:i], host[i:]
	}
	if path[0] == '?' {
		path = "/" + path
	}
	name, port, err := splitHost(host)
	if err != nil {
		return target{}, fmt.Errorf("target %q: %w", s, err)
	}
	if err := checkPath(path); err != nil {
		return target{}, fmt.Errorf("target %q: %w", s, err)
	}
	return checkTarget(s, target{network: "tcp", address: name + ":" + port, host: host, path: path})
}

// splitHost splits what stands before the path. An IPv6 address stays in its brackets.
func splitHost(s string) (name, port string, err error) {
	name, port = s, "80"
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		name = s[:i]
		if s[i+1:] != "" {
			port = s[i+1:]
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", "", fmt.Errorf("port %q is not 1 to 65535", port)
	}
	if _, err := addressesOf(name); err != nil {
		return "", "", err
	}
	return name, port, nil
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
		return nil, fmt.Errorf("host %q is no IP address and not localhost", host)
	}
	return []netip.Addr{a}, nil
}

// checkPath refuses what would not stand for itself in a request.
func checkPath(path string) error {
	for i, c := range []byte(path) {
		switch {
		case c <= ' ' || c == 0x7f:
			return errors.New("blank or control character")
		case c > 0x7f || strings.IndexByte("\"#<>\\^`{|}", c) >= 0:
			return fmt.Errorf("%q in a path has to be written as %%%02X", c, c)
		case c == '%' && !escaped(path[i:]):
			return errors.New("% without two hexadecimal digits")
		}
	}
	return nil
}

func escaped(s string) bool {
	const digits = "0123456789abcdefABCDEF"
	return len(s) > 2 && strings.IndexByte(digits, s[1]) >= 0 && strings.IndexByte(digits, s[2]) >= 0
}

func checkTarget(s string, t target) (target, error) {
	if t.path == "" {
		t.path = "/"
	}
	for _, c := range []byte(t.path + t.host) {
		if c <= ' ' || c == 0x7f {
			return target{}, fmt.Errorf("target %q: blank or control character", s)
		}
	}
	if t.path[0] != '/' {
		return target{}, fmt.Errorf("target %q: path does not begin with /", s)
	}
	return t, nil
}

// request is HTTP/1.1 with as little as RFC 9112 asks for. The body is empty.
func (t target) request(method string) string {
	return method + " " + t.path + " HTTP/1.1\r\nHost: " + t.host +
		"\r\nUser-Agent: rouse\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
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
