package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rouse/quiesce"
)

// buildArgs is a build of a configuration with a kernel and an init that are only files.
func buildArgs(t *testing.T, configuration string, more ...string) []string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "rouse.toml")
	if err := os.WriteFile(file, []byte(configuration), 0o644); err != nil {
		t.Fatal(err)
	}
	kernel := filepath.Join(dir, "vmlinuz")
	if err := os.WriteFile(kernel, []byte("kernel"), 0o644); err != nil {
		t.Fatal(err)
	}
	return append([]string{"build", "-c", file, "-o", filepath.Join(dir, "image"), "--kernel=" + kernel, "--init", kernel}, more...)
}

// Mistakes are found on the host, each with what to do about it.
func TestBuildRefuses(t *testing.T) {
	const service = "[[service]]\nname = \"a\"\nexec = [\"/bin/a\"]\n"
	tests := map[string]struct {
		configuration string
		args          []string
		want          string
	}{
		"unknown key":      {"hostnme = \"a\"\n", nil, "rouse.toml:1: hostnme: no such key; did you mean hostname?"},
		"bad address":      {"[[interface]]\naddresses = [\"10.0.0.300/8\"]\n", nil, "rouse.toml:2"},
		"bad command line": {"", []string{"--cmdline", "quiet rouse.quiesce.leftovers=drop"}, "quiesce.leftovers"},
		"bad file":         {"", []string{"-f", "cert.pem"}, "want HOST:GUEST"},
		"missing file":     {"", []string{"-f", "/nowhere/cert.pem:/etc/cert.pem"}, "/nowhere/cert.pem"},
		"bad mode":         {"", []string{"-f", "/dev/null:/etc/x:9"}, "want HOST:GUEST"},
		"init":             {service, nil, "want rouse's init binary"},
		"no modules":       {"", []string{"--modules", "/nowhere"}, "/nowhere"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out, diag bytes.Buffer
			err := run(buildArgs(t, tt.configuration, tt.args...), &out, &diag)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestSourceDateEpoch(t *testing.T) {
	for text, want := range map[string]int64{"": 0, "1700000000": 1700000000, "now": -1, "-1": -1} {
		t.Setenv("SOURCE_DATE_EPOCH", text)
		got, err := epoch()
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}

func TestParsePorts(t *testing.T) {
	got, err := parsePorts([]string{"443", "8443:443"})
	if err != nil || len(got) != 2 || got[0].HostPort != 0 || got[1].HostPort != 8443 || got[1].GuestPort != 443 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "0", "http", "1:2:3", "70000"} {
		if _, err := parsePorts([]string{bad}); err == nil || !strings.Contains(err.Error(), "8443:443") {
			t.Errorf("%q: %v, want the form", bad, err)
		}
	}
}

func TestCommandsRefuse(t *testing.T) {
	dir := t.TempDir()
	tests := map[string]struct {
		args []string
		want string
	}{
		"bake exists":   {[]string{"bake", dir, "-o", dir}, "exists; choose another folder"},
		"bake no image": {[]string{"bake", dir, "-o", filepath.Join(dir, "s")}, "made by rouse build?"},
		"clone":         {[]string{"clone", dir}, "made by rouse bake?"},
		"clone none":    {[]string{"clone", dir, "-n", "0"}, "at least one"},
		"unknown":       {[]string{"melt"}, "melt"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out, diag bytes.Buffer
			if err := run(tt.args, &out, &diag); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestPhasesInOneLine(t *testing.T) {
	got := phases(quiesce.Report{Phases: []quiesce.Phase{{Name: "hold", DurationNS: 4_500_000}, {Name: "drain", DurationNS: 12_000_000}}})
	if got != "hold 4.5, drain 12.0 ms" {
		t.Error(got)
	}
}

// With --json there is one object a line, and nothing else.
func TestEmit(t *testing.T) {
	var out bytes.Buffer
	s := &session{out: &out, json: true}
	for i := range 2 {
		if err := s.emit(map[string]int{"clone": i}, "text"); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		if !json.Valid([]byte(line)) {
			t.Errorf("%q is not JSON", line)
		}
	}
}

func TestParseDisks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "d:x")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{file: "raw false", file + ":qcow2": "qcow2 false", file + ":raw:ro": "raw true", file + ":ro": "raw true"} {
		got, err := parseDisks([]string{text})
		if err != nil || len(got) != 1 || got[0].Path != file || fmt.Sprint(got[0].Format, " ", got[0].ReadOnly) != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	if _, err := parseDisks([]string{file + ":vmdk"}); err == nil || !strings.Contains(err.Error(), "FILE:qcow2") {
		t.Errorf("%v, want the form", err)
	}
}

func TestIdentityFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "identity")
	if err := os.WriteFile(file, []byte(`[{"hostname": "a"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		flags identityFlags
		want  string // host names, or the error
	}{
		"none":     {identityFlags{}, "[]"},
		"clock":    {identityFlags{Clock: true}, "[ ]"},
		"pattern":  {identityFlags{Hostname: "h{n}"}, "[h0 h1]"},
		"too few":  {identityFlags{Identity: file}, "1 for 2 clones"},
		"both":     {identityFlags{Identity: file, Hostname: "h"}, "into the file"},
		"no file":  {identityFlags{Identity: file + "x"}, "no such file"},
		"only MAC": {identityFlags{MAC: "02:00:00:00:00:{x}", Interface: "eth0"}, "[ ]"},
	} {
		ids, err := tt.flags.list(2)
		var names []string
		for _, id := range ids {
			names = append(names, id.Hostname)
		}
		if err == nil && fmt.Sprint(names) != tt.want || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %q, %v; want %s", name, names, err, tt.want)
		}
	}
}

// TestSnapshotCommandsRefuse: each says what to do.
func TestSnapshotCommandsRefuse(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(dir, "run"))
	micro := filepath.Join(dir, "micro")
	if err := os.Mkdir(micro, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(micro, "manifest.json"), []byte(`{"version":2,"vmm":"firecracker","files":{}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"detach and exec": {[]string{"clone", micro, "-d", "--exec", "true"}, "for QEMU's clones"},
		"publish":         {[]string{"clone", micro, "-p", "x"}, "for QEMU's clones"},
		"bake ports":      {[]string{"bake", micro, "-o", dir + "/x", "--vmm", "firecracker", "-p", "80"}, "--tap"},
		"logs of nobody":  {[]string{"logs", "nobody"}, "no clone nobody"},
		"stop nobody":     {[]string{"stop", "nobody"}, "no clone nobody"},
		"rm nobody":       {[]string{"rm", "../x"}, "no clone ../x"},
		"push no folder":  {[]string{"push", dir, "127.0.0.1:1/x"}, "made by rouse bake?"},
		"push where":      {[]string{"push", dir, "UPPER CASE"}, "could not parse reference"},
		"import":          {[]string{"import", filepath.Join(micro, "manifest.json"), dir + "/y"}, "rouse export?"},
		"verify":          {[]string{"verify", dir}, "made by rouse build?"},
	} {
		var out, diag bytes.Buffer
		if err := run(tt.args, &out, &diag); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	var out, diag bytes.Buffer
	if err := run([]string{"ps"}, &out, &diag); err != nil || !strings.HasPrefix(out.String(), "NAME") {
		t.Errorf("ps: %v, %s", err, out.String())
	}
}

// TestBuildMachine: a VMM's configuration stands beside what was built, with names that the VMM finds in that folder.
func TestBuildMachine(t *testing.T) {
	dir := t.TempDir()
	text, err := os.ReadFile(static(t))
	must(t, err)
	elf := put(t, filepath.Join(dir, "vmlinux"), string(text), 0o644)
	config := put(t, filepath.Join(dir, "rouse.toml"), "[[service]]\nname = \"a\"\nexec = [\"/bin/a\"]\n", 0o644)
	args := func(kernel, vmm string) []string {
		return []string{"build", static(t), "-c", config, "-o", filepath.Join(dir, "image"), "--kernel", kernel, "--init", static(t), "--vmm", vmm, "--tap", "tap0"}
	}
	var out, diag bytes.Buffer
	for _, vmm := range []string{"firecracker", "cloud-hypervisor"} {
		must(t, run(args(elf, vmm), &out, &diag))
		got, err := os.ReadFile(filepath.Join(dir, "image", vmm+".json"))
		must(t, err)
		for _, want := range []string{`"vmlinuz"`, `"initrd"`, `"vsock.sock"`, `"tap0"`} {
			if !bytes.Contains(got, []byte(want)) {
				t.Errorf("%s: no %s in\n%s", vmm, want, got)
			}
		}
	}
	if err := run(args(put(t, filepath.Join(dir, "bz"), "MZ", 0o644), "firecracker"), &out, &diag); err == nil || !strings.Contains(err.Error(), "extract-vmlinux") {
		t.Errorf("a bzImage: %v", err)
	}
}
