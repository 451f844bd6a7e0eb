//go:build root

package sysgenid

import (
	"bufio"
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The sources travel in the test binary: a guest has no source tree.
var (
	//go:embed sysgenid.h
	headerSource []byte
	//go:embed examples/watch.c
	watchC []byte
	//go:embed examples/watch.py
	watchPython []byte
	//go:embed testdata/abi.c
	abiC []byte
)

// compile builds a C program against the header.
func compile(t testing.TB, name string, source []byte) string {
	t.Helper()
	cc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no C compiler: gcc")
	}
	dir := t.TempDir()
	for file, text := range map[string][]byte{name + ".c": source, "sysgenid.h": headerSource} {
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, name)
	cmd := exec.Command(cc, "-std=gnu99", "-Wall", "-Wextra", "-Werror", "-O2", "-o", out, out+".c")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compile %s: %v\n%s", name, err, text)
	}
	return out
}

func TestC(t *testing.T) {
	client := compile(t, "abi", abiC)
	inModes(t, func(t *testing.T, d *device, _ Mode) {
		out, err := exec.Command(client, d.path).CombinedOutput()
		if string(out) != "conforms\n" || err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

func TestCExample(t *testing.T) {
	client := compile(t, "watch", watchC)
	inModes(t, func(t *testing.T, d *device, _ Mode) { watchExample(t, d, exec.Command(client, d.path)) })
}

func TestPythonExample(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no Python: python3")
	}
	file := filepath.Join(t.TempDir(), "watch.py")
	if err := os.WriteFile(file, watchPython, 0o644); err != nil {
		t.Fatal(err)
	}
	inModes(t, func(t *testing.T, d *device, _ Mode) { watchExample(t, d, exec.Command(python, file, d.path)) })
}

// watchExample bumps for a program that watches, and waits for what it prints.
func watchExample(t *testing.T, d *device, cmd *exec.Cmd) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	lines := bufio.NewScanner(out)
	for _, want := range []string{"watching, generation 0", "adjusted to generation 5", "adjusted to generation 6"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("printed %q, want %q", lines.Text(), want)
		}
		switch want {
		case "watching, generation 0":
			d.bump(5)
		case "adjusted to generation 5":
			d.want("<nil>", "wait 60000")
			d.bump(0)
		}
	}
}
