package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"rouse/internal/json"
)

// readLimit is what one guest-file-read gives at most; in base64 it stays below MaxLine.
const readLimit = 512 << 10

// openFlags are fopen's modes, as the guest agent takes them; a "b" says nothing on Linux.
var openFlags = map[string]int{
	"r": os.O_RDONLY, "w": os.O_WRONLY | os.O_CREATE | os.O_TRUNC, "a": os.O_WRONLY | os.O_CREATE | os.O_APPEND,
	"r+": os.O_RDWR, "w+": os.O_RDWR | os.O_CREATE | os.O_TRUNC, "a+": os.O_RDWR | os.O_CREATE | os.O_APPEND,
}

func fileOpen(_ context.Context, s *Server, args json.RawMessage) (any, error) {
	a := struct {
		Path string `json:"path"`
		Mode string `json:"mode"`
	}{Mode: "r"}
	if err := decodeArgs(args, &a); err != nil {
		return nil, err
	}
	var mode []byte
	for _, c := range []byte(a.Mode) {
		if c != 'b' {
			mode = append(mode, c)
		}
	}
	flags, ok := openFlags[string(mode)]
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

// onFile decodes arguments that begin with a handle and runs f on its file.
func onFile[T any](s *Server, args json.RawMessage, a *T, handle *int64, f func(*os.File) (any, error)) (any, error) {
	if err := decodeArgs(args, a); err != nil {
		return nil, err
	}
	file, err := s.files.get(*handle)
	if err != nil {
		return nil, err
	}
	return f(file)
}

type handleArgs struct {
	Handle int64 `json:"handle"`
}

func fileClose(_ context.Context, s *Server, args json.RawMessage) (any, error) {
	var a handleArgs
	return onFile(s, args, &a, &a.Handle, func(f *os.File) (any, error) {
		s.files.remove(a.Handle)
		return empty{}, f.Close()
	})
}

func fileRead(_ context.Context, s *Server, args json.RawMessage) (any, error) {
	a := struct {
		Handle int64 `json:"handle"`
		Count  int64 `json:"count"`
	}{Count: 4096}
	return onFile(s, args, &a, &a.Handle, func(f *os.File) (any, error) {
		if a.Count < 0 || a.Count > readLimit {
			return nil, fmt.Errorf("count is %d, must be from 0 to %d", a.Count, readLimit)
		}
		buf := make([]byte, a.Count)
		n, err := f.Read(buf)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return struct {
			Count int    `json:"count"`
			Data  []byte `json:"buf-b64"`
			EOF   bool   `json:"eof"`
		}{n, buf[:n], errors.Is(err, io.EOF)}, nil
	})
}

func fileWrite(_ context.Context, s *Server, args json.RawMessage) (any, error) {
	var a struct {
		Handle int64  `json:"handle"`
		Data   []byte `json:"buf-b64"`
		Count  *int   `json:"count"`
	}
	return onFile(s, args, &a, &a.Handle, func(f *os.File) (any, error) {
		data := a.Data
		if a.Count != nil {
			if *a.Count < 0 || *a.Count > len(data) {
				return nil, fmt.Errorf("count is %d, must be from 0 to %d", *a.Count, len(data))
			}
			data = data[:*a.Count]
		}
		n, err := f.Write(data)
		return struct {
			Count int  `json:"count"`
			EOF   bool `json:"eof"`
		}{n, false}, err
	})
}

// fileSeek takes whence as a number or as the guest agent's word for it.
func fileSeek(_ context.Context, s *Server, args json.RawMessage) (any, error) {
	var a struct {
		Handle int64           `json:"handle"`
		Offset int64           `json:"offset"`
		Whence json.RawMessage `json:"whence"`
	}
	return onFile(s, args, &a, &a.Handle, func(f *os.File) (any, error) {
		whence, ok := map[string]int{"0": 0, "1": 1, "2": 2, `"set"`: 0, `"cur"`: 1, `"end"`: 2}[string(a.Whence)]
		if !ok {
			return nil, fmt.Errorf("whence is %s, must be set, cur or end", a.Whence)
		}
		pos, err := f.Seek(a.Offset, whence)
		return struct {
			Position int64 `json:"position"`
			EOF      bool  `json:"eof"`
		}{pos, false}, err
	})
}

func fileFlush(_ context.Context, s *Server, args json.RawMessage) (any, error) {
	var a handleArgs
	return onFile(s, args, &a, &a.Handle, func(f *os.File) (any, error) { return empty{}, f.Sync() })
}
