//go:build root

package control

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// nobody is a uid that owns nothing.
const nobody = 65534

// TestUnixHearsRootOnly: even with a socket that everybody may open, the peer's credentials decide.
func TestUnixHearsRootOnly(t *testing.T) {
	if path := os.Getenv("ROUSE_TEST_SOCKET"); path != "" {
		c, err := DialUnix(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Do(t.Context(), "guest-ping", nil, nil); err == nil || errors.Is(err, ErrTimeout) {
			t.Fatalf("got %v, want the connection closed", err)
		}
		return
	}
	dir, err := os.MkdirTemp("/tmp", "rouse-peer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path, exe := filepath.Join(dir, "s"), filepath.Join(dir, "test")
	copyTo(t, os.Args[0], exe)
	serveUnix(t, NewServer(&fakeGuest{}, ServerOptions{}), path)
	for name, mode := range map[string]os.FileMode{dir: 0o755, path: 0o666} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(exe, "-test.run=^TestUnixHearsRootOnly$")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "ROUSE_TEST_SOCKET="+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as uid %d: %v\n%s", nobody, err, out)
	}
}

func copyTo(t *testing.T, from, to string) {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
}
