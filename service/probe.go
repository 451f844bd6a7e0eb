package service

import (
	"errors"
	"fmt"
	"net/url"
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
	u, err := url.Parse(s)
	if err != nil {
		return target{}, fmt.Errorf("target: %w", err)
	}
	if u.Scheme != "http" || u.Hostname() == "" || u.User != nil {
		return target{}, fmt.Errorf("target %q: not http://HOST:PORT/PATH or unix:/SOCKET:/PATH", s)
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	host := u.Hostname()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return checkTarget(s, target{network: "tcp", address: host + ":" + port, host: u.Host, path: u.RequestURI()})
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
