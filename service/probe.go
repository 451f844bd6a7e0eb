package service

import (
	"bytes"
	"errors"
	"strconv"
	"strings"

	"rouse/internal/definition"
)

// target is where an HTTP request goes.
type target definition.Target

func parseTarget(s string) (target, error) {
	t, why := definition.ParseTarget(s)
	return target(t), wrong("target", s, why)
}

// request is HTTP/1.1 with as little as RFC 9112 asks for. The body is empty.
func (t target) request(method string) string {
	return method + " " + t.Path + " HTTP/1.1\r\nHost: " + t.Host +
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
