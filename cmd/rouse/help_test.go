package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// complete asks bash what it would offer for a line.
func complete(t *testing.T, script string, words ...string) []string {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("needs bash:", err)
	}
	cmd := exec.Command(bash, "--norc", "-c", script+`
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _rouse; printf '%s\n' "${COMPREPLY[@]}"`, "bash")
	cmd.Args = append(cmd.Args, words...)
	cmd.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(cmd.Dir, "snapshot"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.Fields(string(out))
}

func TestCompletion(t *testing.T) {
	var out, diag bytes.Buffer
	if err := run([]string{"completion", "bash"}, &out, &diag); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		words []string
		want  string
	}{
		{[]string{"rouse", "cl"}, "clone"},
		{[]string{"rouse", "--json", "ver"}, "verify"},
		{[]string{"rouse", "bake", "--acc"}, "--accel"},
		{[]string{"rouse", "bake", "--accel", ""}, "auto kvm tcg"},
		{[]string{"rouse", "clone", "--no-v"}, "--no-verify"},
		{[]string{"rouse", "completion", "z"}, "zsh"},
		{[]string{"rouse", "clone", "sn"}, "snapshot"},
	} {
		if got := strings.Join(complete(t, out.String(), tt.words...), " "); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.words, got, tt.want)
		}
	}
	out.Reset()
	if err := run([]string{"completion", "zsh"}, &out, &diag); err != nil || !strings.Contains(out.String(), "bashcompinit") {
		t.Errorf("%v", err)
	}
}

// TestManual wants a page for each command that names each flag, and that man can show without a complaint.
func TestManual(t *testing.T) {
	dir := t.TempDir()
	var out, diag bytes.Buffer
	if err := run([]string{"man", dir}, &out, &diag); err != nil {
		t.Fatal(err)
	}
	pages, _ := filepath.Glob(filepath.Join(dir, "*.1"))
	if len(pages) < 15 {
		t.Errorf("%q", pages)
	}
	text, err := os.ReadFile(filepath.Join(dir, "rouse-bake.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`.TH ROUSE-BAKE 1`, `\-\-leftovers`, `\-o, \-\-output`, `.SH ARGUMENTS`} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	man, err := exec.LookPath("man")
	if err != nil {
		t.Skip("needs man, to show them:", err)
	}
	for _, page := range pages {
		cmd := exec.Command(man, "--warnings", "-l", page)
		cmd.Env = append(os.Environ(), "MANPAGER=cat", "PAGER=cat", "LC_ALL=C.UTF-8", "MANWIDTH=100")
		var complaints bytes.Buffer
		cmd.Stderr = &complaints
		shown, err := cmd.Output()
		if err != nil || complaints.Len() > 0 || !bytes.Contains(shown, []byte("NAME")) {
			t.Errorf("%s: %v, %s", filepath.Base(page), err, complaints.String())
		}
	}
}

func TestRoff(t *testing.T) {
	for text, want := range map[string]string{"a-b": `a\-b`, `a\b`: `a\eb`, ".SH x": `\&.SH x`, "'x": `\&'x`, "a\n.b": "a .b"} {
		if got := roff(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
