package service

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestHookCheck(t *testing.T) {
	tests := map[string]struct {
		h    Hook
		want string // "" is well
	}{
		"command":        {Hook{Exec: []string{"x"}, User: "a"}, ""},
		"loopback":       {Hook{URL: "http://127.0.0.9:80/x"}, ""},
		"loopback 6":     {Hook{URL: "http://[::1]:80/x"}, ""},
		"mapped":         {Hook{URL: "http://[::ffff:127.0.0.1]/"}, ""},
		"localhost":      {Hook{URL: "http://localhost/"}, ""},
		"unix URL":       {Hook{URL: "unix:/x:/y"}, ""},
		"socket":         {Hook{URL: "socket:/x"}, ""},
		"notify":         {Hook{URL: "notify:/x"}, ""},
		"nothing":        {Hook{}, "no command"},
		"empty command":  {Hook{Exec: []string{""}}, "no command"},
		"two":            {Hook{Exec: []string{"x"}, URL: "notify:/x"}, "hook: both"},
		"user of socket": {Hook{URL: "socket:/x", User: "a"}, "hook: both"},
		"relative":       {Hook{URL: "socket:x"}, "no absolute path"},
		"unknown":        {Hook{URL: "ftp://localhost/"}, "not http://"},
		"elsewhere":      {Hook{URL: "http://10.0.0.1/"}, "not on this machine"},
		"all addresses":  {Hook{URL: "http://0.0.0.0/"}, "not on this machine"},
		"name":           {Hook{URL: "http://example.org/"}, "no IP address"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := tt.h.check()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestMachineHooksAreChecked(t *testing.T) {
	for want, h := range map[string]Hook{"no command": {}, "hooks of the machine": {Exec: []string{"x"}, User: "nobody-at-all"}} {
		if _, err := New(Options{Hooks: Spec{AfterRestore: []Hook{h}}}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// What a hook has printed is read whole although the deadline for its end has passed by then; who holds the pipe open is not waited for.
func TestReadTailIsLate(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	want := strings.Repeat("x", 5000) + "end"
	if _, err := w.WriteString(want); err != nil {
		t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if got := string(readTail(r, 1000)); got != want[len(want)-1000:] {
		t.Errorf("%d bytes: %.20q", len(got), got)
	}
}

func FuzzParseAnswer(f *testing.F) {
	for _, s := range []string{"ok\n", "ok fine\r\n", "not-now backup", "no", "", " ", "ok \x1b[31m\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		text, code, err := parseAnswer(line)
		if (code == 0) != (err == nil) || (code == NotNow) != errors.Is(err, ErrNotNow) {
			t.Errorf("%q: %q, %d, %v", line, text, code, err)
		}
		if strings.ContainsAny(text, "\n\r\x1b") || len(text) > 256*4 {
			t.Errorf("%q: text %q is not for a console", line, text)
		}
	})
}
