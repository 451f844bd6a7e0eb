package rootfs

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

// mostMetadata bounds an answer of MMDS; Firecracker keeps 51200 bytes unless told otherwise (its docs/mmds).
const mostMetadata = 1 << 20

var errHTTP = errors.New("the answer is not HTTP as Firecracker writes it")

// parseHTTP reads what has come of an answer so far (RFC 9112) as far as Firecracker writes it: with a Content-Length, or up to the
// end of the connection, which eof says. more: it is not whole yet. A status of 0 without more: it is nothing of the kind.
func parseHTTP(b []byte, eof bool) (status int, body []byte, more bool) {
	more = !eof && len(b) <= mostMetadata
	first, body, ok := bytes.Cut(b, []byte("\r\n\r\n"))
	if !ok {
		return 0, nil, more
	}
	head := string(first)
	if len(head) < len("HTTP/1.1 200") || head[:7] != "HTTP/1." {
		return 0, nil, false
	}
	status, _ = strconv.Atoi(head[9:12])
	length := len(body)
	if _, value, given := strings.Cut(strings.ToLower(head), "\r\ncontent-length:"); given {
		value, _, _ = strings.Cut(value, "\r\n")
		n, err := strconv.Atoi(strings.TrimSpace(value))
		if err != nil || n < 0 || n > mostMetadata {
			return 0, nil, false
		}
		if length < n {
			return 0, nil, more
		}
		length = n
	} else if more {
		return 0, nil, true
	}
	return status, body[:length], false
}
