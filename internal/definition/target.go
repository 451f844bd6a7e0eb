package definition

import (
	"net/netip"
	"strconv"
	"strings"
)

// Target is where an HTTP request goes: over TCP to Address, "HOST:PORT", or over a unix socket at the path Address.
type Target struct {
	Network string // "tcp" or "unix"
	Address string
	Host    string // for the Host header
	Path    string // begins with /
}

// ParseTarget reads "http://HOST:PORT/PATH" or "unix:/SOCKET:/PATH". TLS is not spoken: what asks for readiness is on the
// same machine.
func ParseTarget(s string) (t Target, why string) {
	rest, ok := strings.CutPrefix(s, "unix:")
	if !ok {
		return parseURL(s)
	}
	t = Target{Network: "unix", Host: "localhost", Path: "/"}
	path := ""
	t.Address, path, ok = strings.Cut(rest, ":")
	if ok && path != "" {
		t.Path = path
	}
	switch {
	case t.Address == "" || t.Address[0] != '/':
		why = "not unix:/SOCKET:/PATH"
	case t.Path[0] != '/':
		why = "path does not begin with /"
	default:
		if why = unixPath(t.Address); why == "" {
			why = blank(t.Path)
		}
	}
	return t, why
}

// parseURL reads as much of RFC 3986 as such a target may hold. Package net/url, with net to resolve names, is half a megabyte
// of the init; what rouse asks over TCP has an address, or is localhost.
func parseURL(s string) (t Target, why string) {
	const scheme = "http://"
	if len(s) < len(scheme) || !strings.EqualFold(s[:len(scheme)], scheme) {
		return t, "not http://HOST:PORT/PATH or unix:/SOCKET:/PATH"
	}
	t = Target{Network: "tcp", Host: s[len(scheme):], Path: "/"}
	if i := strings.IndexAny(t.Host, "/?#"); i >= 0 {
		t.Host, t.Path = t.Host[:i], t.Host[i:]
	}
	if t.Path[0] == '?' {
		t.Path = "/" + t.Path
	}
	// An IPv6 address stays in its brackets.
	name, port := t.Host, "80"
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, ']') {
		if name[i+1:] != "" {
			port = name[i+1:]
		}
		name = name[:i]
	}
	t.Address = name + ":" + port
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return t, "port is not 1 to 65535"
	}
	if t.Addresses() == nil {
		return t, "host " + strconv.Quote(name) + ": no IP address and not localhost"
	}
	if why = blank(t.Host); why == "" {
		why = checkPath(t.Path)
	}
	return t, why
}

// Addresses are those of a TCP target's host, in the order in which they are tried; nil if it is no address.
func (t Target) Addresses() []netip.Addr {
	host := t.Address[:strings.LastIndexByte(t.Address, ':')]
	if strings.EqualFold(host, "localhost") { // RFC 6761, section 6.3
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	inner, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		inner, bracketed = strings.CutSuffix(inner, "]")
	}
	a, err := netip.ParseAddr(inner)
	if err != nil || a.Is6() != bracketed || a.Zone() != "" {
		return nil
	}
	return []netip.Addr{a}
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

// Kinds of hook that are told something over a unix socket, by the scheme of their URL. What has another scheme is a Target.
const (
	SocketHook = "socket"
	NotifyHook = "notify"
)

// CheckHook reads the URL of a hook. What it reaches has to be on this machine: while hooks run after a restore nothing leaves it.
func CheckHook(url string) (why string) {
	if kind, path, _ := strings.Cut(url, ":"); kind == SocketHook || kind == NotifyHook {
		return unixPath(path)
	}
	t, why := ParseTarget(url)
	if why != "" || t.Network == "unix" {
		return why
	}
	if !t.Addresses()[0].Unmap().IsLoopback() { // of several addresses, those of localhost, all are
		return "not on this machine; use localhost or a unix socket"
	}
	return ""
}
