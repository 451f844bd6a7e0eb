package vmm

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func exported(t *testing.T) []byte {
	t.Helper()
	dir, _ := folder(t)
	var b bytes.Buffer
	if err := Export(t.Context(), dir, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestArchive(t *testing.T) {
	data := exported(t)
	output := filepath.Join(t.TempDir(), "again")
	if _, err := Import(t.Context(), bytes.NewReader(data), output); err != nil {
		t.Fatal(err)
	}
	m, err := ReadManifest(output)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Verify(t.Context(), output); err != nil {
		t.Error(err)
	}
	if _, err := Import(t.Context(), bytes.NewReader(data), output); err == nil {
		t.Error("a snapshot was written over")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Import(ctx, bytes.NewReader(data), output+"2"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// entries rewrites an archive.
func entries(t *testing.T, data []byte, change func(h *tar.Header, body []byte) [][2]any) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		body, _ := io.ReadAll(r)
		for _, e := range change(h, body) {
			h, body := *e[0].(*tar.Header), e[1].([]byte)
			h.Size = int64(len(body))
			if err := errors.Join(w.WriteHeader(&h), second(w.Write(body))); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.Close()
	return b.Bytes()
}

func second(_ int, err error) error { return err }

// TestImportRefuses: nothing of a bad archive is left, and each fault is named.
func TestImportRefuses(t *testing.T) {
	data := exported(t)
	keep := func(h *tar.Header, body []byte) [][2]any { return [][2]any{{h, body}} }
	for name, tt := range map[string]struct {
		data []byte
		want string
	}{
		"text":      {[]byte("hello"), "rouse export"},
		"empty":     {nil, "rouse export"},
		"cut short": {data[:len(data)/2], ""},
		"changed": {entries(t, data, func(h *tar.Header, b []byte) [][2]any {
			if h.Name == StateFile {
				b[0]++
			}
			return keep(h, b)
		}), "changed or damaged"},
		"one lacks": {entries(t, data, func(h *tar.Header, b []byte) [][2]any {
			if h.Name == CmdlineFile {
				return nil
			}
			return keep(h, b)
		}), "ends before [cmdline]"},
		"one twice": {entries(t, data, func(h *tar.Header, b []byte) [][2]any {
			if h.Name == CmdlineFile {
				return [][2]any{{h, b}, {h, b}}
			}
			return keep(h, b)
		}), "came before"},
		"way out": {entries(t, data, func(h *tar.Header, b []byte) [][2]any {
			if h.Name == CmdlineFile {
				h.Name = "../cmdline"
			}
			return keep(h, b)
		}), "names no such"},
		"link": {entries(t, data, func(h *tar.Header, b []byte) [][2]any {
			if h.Name == CmdlineFile {
				h.Typeflag, h.Linkname, b = tar.TypeSymlink, "/etc/passwd", nil
			}
			return keep(h, b)
		}), "names no such"},
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			_, err := Import(t.Context(), bytes.NewReader(tt.data), filepath.Join(parent, "s"))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if left, _ := os.ReadDir(parent); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func FuzzImport(f *testing.F) {
	f.Add([]byte("manifest.json"))
	f.Fuzz(func(t *testing.T, data []byte) {
		parent := t.TempDir()
		if _, err := Import(t.Context(), bytes.NewReader(data), filepath.Join(parent, "s")); err == nil {
			t.Skip("a whole snapshot")
		}
		if left, _ := os.ReadDir(parent); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func TestWriteSparse(t *testing.T) {
	data := make([]byte, 3<<20+777)
	for _, at := range []int{0, page - 1, page, 5 * page, 1<<20 - 1, 1 << 20, 2<<20 + 5, len(data) - 1} {
		data[at] = 1
	}
	path := filepath.Join(t.TempDir(), "f")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(WriteSparse(f, 0, bytes.NewReader(data)), f.Truncate(int64(len(data)))); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); !bytes.Equal(got, data) {
		t.Error("not the same bytes")
	}
}
