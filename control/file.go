package control

import (
	"context"
	"io"
	"os"

	"rouse/internal/fmt"
)

// readLimit is what one guest-file-read gives at most; in base64 it stays below MaxLine.
const readLimit = 512 << 10

// openFlags are fopen's modes, as the guest agent takes them; a "b" says nothing on Linux.
func openFlags(mode string) (flags int, ok bool) {
	kind := ""
	for _, c := range []byte(mode) {
		if c != 'b' {
			kind += string(c)
		}
	}
	switch kind {
	case "", "r":
		return os.O_RDONLY, true
	case "w":
		return os.O_WRONLY | os.O_CREATE | os.O_TRUNC, true
	case "a":
		return os.O_WRONLY | os.O_CREATE | os.O_APPEND, true
	case "r+":
		return os.O_RDWR, true
	case "w+":
		return os.O_RDWR | os.O_CREATE | os.O_TRUNC, true
	case "a+":
		return os.O_RDWR | os.O_CREATE | os.O_APPEND, true
	}
	return 0, false
}

func fileOpen(_ context.Context, s *Server, a *arguments) (any, error) {
	flags, ok := openFlags(a.Mode)
	if !ok {
		return nil, fmt.Errorf("mode is %q, must be r, w, a, r+, w+ or a+", a.Mode)
	}
	f, err := os.OpenFile(a.Path, flags, 0o666)
	if err != nil {
		return nil, err
	}
	n, err := s.files.add(0, f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return n, nil
}

// onFile makes a command of what is done with the file of its handle.
func onFile(f func(s *Server, a *arguments, file *os.File) (any, error)) func(context.Context, *Server, *arguments) (any, error) {
	return func(_ context.Context, s *Server, a *arguments) (any, error) {
		file, err := s.files.get(a.Handle)
		if err != nil {
			return nil, err
		}
		return f(s, a, file)
	}
}

func fileClose(s *Server, a *arguments, f *os.File) (any, error) {
	s.files.remove(a.Handle)
	return empty{}, f.Close()
}

// transfer is the answer of what reads, writes and seeks; each has its own part of it.
type transfer struct {
	Count    *int    `json:"count,omitempty"`
	Position *int64  `json:"position,omitempty"`
	Data     *[]byte `json:"buf-b64,omitempty"` // also if empty
	EOF      bool    `json:"eof"`
}

func fileRead(_ *Server, a *arguments, f *os.File) (any, error) {
	count := int64(4096)
	if a.Count != nil {
		count = *a.Count
	}
	if count < 0 || count > readLimit {
		return nil, fmt.Errorf("count is %d, must be from 0 to %d", count, readLimit)
	}
	buf := make([]byte, count)
	n, err := f.Read(buf)
	if err != nil && err != io.EOF {
		return nil, err
	}
	buf = buf[:n]
	return transfer{Count: &n, Data: &buf, EOF: err == io.EOF}, nil
}

func fileWrite(_ *Server, a *arguments, f *os.File) (any, error) {
	data := a.Data
	if a.Count != nil {
		if *a.Count < 0 || *a.Count > int64(len(data)) {
			return nil, fmt.Errorf("count is %d, must be from 0 to %d", *a.Count, len(data))
		}
		data = data[:*a.Count]
	}
	n, err := f.Write(data)
	return transfer{Count: &n}, err
}

// fileSeek takes whence as a number or as the guest agent's word for it.
func fileSeek(_ *Server, a *arguments, f *os.File) (any, error) {
	var whence int
	switch string(a.Whence) {
	case "0", `"set"`:
		whence = io.SeekStart
	case "1", `"cur"`:
		whence = io.SeekCurrent
	case "2", `"end"`:
		whence = io.SeekEnd
	default:
		return nil, fmt.Errorf("whence is %s, must be set, cur or end", a.Whence)
	}
	pos, err := f.Seek(a.Offset, whence)
	return transfer{Position: &pos}, err
}

func fileFlush(_ *Server, _ *arguments, f *os.File) (any, error) { return empty{}, f.Sync() }
