package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"rouse/config/toml"
	"rouse/vmm"
)

// An image may bring its own configuration; that of the command line goes above it.
func TestOwnConfiguration(t *testing.T) {
	dir := container(t, v1.Config{Cmd: []string{"sh"}}, "etc/rouse.toml=hostname = \"own\"\n[[service]]\nname = \"main\"\nready = \"started\"\nnice = 3\n", "etc/rouse.d/50-more.toml=[quiesce]\ntimeout = \"7s\"\n")
	user := put(t, filepath.Join(t.TempDir(), "rouse.toml"), "[[service]]\nname = \"main\"\nnice = 4\n", 0o644)
	_, got, err := built(t, dir, "-c", user)
	must(t, err)
	if !strings.Contains(got["/etc/rouse.toml"], `exec = ["/bin/sh"]`) || !strings.Contains(got[ownFile], `hostname = "own"`) || !strings.Contains(got[buildFile], "nice = 4") || !strings.Contains(got["/etc/rouse.d/50-more.toml"], "7s") {
		t.Errorf("%q", got)
	}
	// A folder says nothing of itself: its file stays in its place.
	root := t.TempDir()
	put(t, root+"/etc/rouse.toml", "[[service]]\nname = \"a\"\nexec = [\"/a\"]\n", 0o644)
	text, err := os.ReadFile(static(t))
	must(t, err)
	put(t, root+"/a", string(text), 0o755)
	m, got, err := built(t, root)
	must(t, err)
	if !slices.Equal(m.Services, []string{"a"}) || len(got[ownFile]+got[buildFile]) > 0 {
		t.Errorf("%+v, %q", m, got)
	}
}

func TestProgram(t *testing.T) {
	program := static(t)
	m, got, err := built(t, program)
	must(t, err)
	if !strings.Contains(got["/etc/rouse.toml"], `exec = ["/usr/bin/server"]`) || got["/usr/bin/server"] == "" || !slices.Equal(m.Services, []string{"main"}) {
		t.Errorf("%+v: %s", m, got["/etc/rouse.toml"])
	}
	for user, want := range map[string]string{
		"[[service]]\nname = \"web\"\nexec = [\"/opt/it\", \"-x\"]\n": "/opt/it",
		"[[service]]\nname = \"web\"\nready = \"notify\"\n":           "/usr/bin/server",
		"hostname = \"x\"\n": "/usr/bin/server",
	} {
		_, got, err := built(t, program, "-c", put(t, filepath.Join(t.TempDir(), "rouse.toml"), user, 0o644))
		if err != nil || got[want] == "" {
			t.Errorf("%q: %v; want the program at %s", user, err, want)
		}
	}
}

// The same input gives the same bytes: every file of the folder, in every format that can be made here.
func TestBuildIsReproducible(t *testing.T) {
	in := container(t, v1.Config{Cmd: []string{"sh"}, Env: []string{"A=b"}, Volumes: map[string]struct{}{"/b": {}, "/a": {}}}, "etc/machine-id=x", "etc/ssh/ssh_host_rsa_key=x")
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	for _, format := range []string{"none", "gzip", "zstd", "ext4", "squashfs"} {
		t.Run(format, func(t *testing.T) {
			var before map[string]string
			for range 2 {
				out := filepath.Join(t.TempDir(), "image")
				kernel := put(t, filepath.Join(t.TempDir(), "vmlinuz"), "kernel", 0o644)
				var text, diag bytes.Buffer
				if err := run([]string{"build", in, "-o", out, "--kernel", kernel, "--init", static(t), "--format", format, "--free", "1M"}, &text, &diag); err != nil {
					if strings.Contains(err.Error(), "; install ") {
						t.Skip(err)
					}
					t.Fatal(err)
				}
				if !strings.Contains(text.String(), "command line: quiet") || !strings.Contains(text.String(), "by hand: cd ") {
					t.Errorf("%s", text.String())
				}
				now := map[string]string{}
				list, err := os.ReadDir(out)
				must(t, err)
				for _, e := range list {
					b, err := os.ReadFile(filepath.Join(out, e.Name()))
					must(t, err)
					now[e.Name()] = string(b)
				}
				for name := range before {
					if before[name] != now[name] {
						t.Errorf("%s differs", name)
					}
				}
				before = now
			}
			var m made
			must(t, json.Unmarshal([]byte(before[imageFile]), &m))
			if !slices.Equal(m.Stripped, []string{"/etc/machine-id", "/etc/ssh/ssh_host_rsa_key"}) {
				t.Errorf("stripped %q", m.Stripped)
			}
			for name, sum := range m.Files {
				if int64(len(before[name])) != sum.Bytes {
					t.Errorf("%s: %d bytes, %+v", name, len(before[name]), sum)
				}
			}
			if _, disk := before[vmm.DisksFile]; disk != strings.Contains(m.Cmdline, "root=") {
				t.Errorf("command line %q, disks %q", m.Cmdline, before[vmm.DisksFile])
			}
		})
	}
}

// A disk that another build has left is not attached to this one.
func TestBuildReplaces(t *testing.T) {
	out := filepath.Join(t.TempDir(), "image")
	put(t, filepath.Join(out, vmm.DisksFile), "[]", 0o644)
	put(t, filepath.Join(out, "root.ext4"), "old", 0o644)
	kernel := put(t, filepath.Join(t.TempDir(), "vmlinuz"), "kernel", 0o644)
	must(t, run([]string{"build", static(t), "-o", out, "--kernel", kernel, "--init", static(t)}, io.Discard, io.Discard))
	for _, name := range []string{vmm.DisksFile, "root.ext4"} {
		if _, err := os.Stat(filepath.Join(out, name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
}

// bzImage is the head of a kernel that says its release.
func bzImage(release string) string {
	head := make([]byte, 0x300)
	copy(head[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(head[0x20e:], 0x80)
	copy(head[0x280:], release+" (builder) #1 SMP\x00")
	return string(head)
}

// The kernel's own modules are taken of several, and another's are refused.
func TestKernelRelease(t *testing.T) {
	modules := t.TempDir()
	for _, release := range []string{"6.1.0-x", "6.12.9-y"} {
		for _, name := range []string{"modules.dep", "modules.builtin"} {
			put(t, filepath.Join(modules, "lib/modules", release, name), "", 0o644)
		}
	}
	out := filepath.Join(t.TempDir(), "image")
	for release, want := range map[string]string{"6.12.9-y": "", "6.6.0-z": "holds 2 matching releases", "../../x": "holds 2 matching releases"} {
		kernel := put(t, filepath.Join(t.TempDir(), "vmlinuz"), bzImage(release), 0o644)
		err := run([]string{"build", static(t), "-o", out, "--kernel", kernel, "--init", static(t), "--modules", modules}, io.Discard, io.Discard)
		if (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", release, err, want)
		}
	}
	kernel := put(t, filepath.Join(t.TempDir(), "vmlinuz"), bzImage("6.12.9-y"), 0o644)
	err := run([]string{"build", static(t), "-o", out, "--kernel", kernel, "--init", static(t), "--modules", modules, "--release", "6.1.0-x"}, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "is kernel 6.12.9-y, and the modules are for 6.1.0-x") {
		t.Errorf("error %v", err)
	}
}

func FuzzKernelRelease(f *testing.F) {
	f.Add([]byte(bzImage("6.1")))
	f.Fuzz(func(t *testing.T, head []byte) {
		if r := releaseOf(head); strings.ContainsAny(r, " \x00") {
			t.Errorf("release %q", r)
		}
	})
}

// The manual tells of every flag, prefix and file.
func TestImagesManual(t *testing.T) {
	text, err := os.ReadFile("../../docs/images.md")
	must(t, err)
	want := []string{"--vmm", "bin:", "dir:", "tar:", "oci:", "oci-archive:", "docker-archive:", "registry:", "docker://", ownFile, buildFile, imageFile, vmm.DisksFile, vmm.CmdlineFile}
	parser, err := kong.New(&struct {
		Build buildCommand `cmd:""`
	}{})
	must(t, err)
	for _, f := range parser.Model.Children[0].Flags {
		want = append(want, "--"+f.Name)
	}
	for _, w := range want {
		if !strings.Contains(string(text), w) {
			t.Errorf("docs/images.md does not tell of %s", w)
		}
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{"a/b.c": "a/b.c", "": "''", "a b": "'a b'", "it's": `'it'\''s'`} {
		if got := shellQuote(in); got != want {
			t.Errorf("%q: %s", in, got)
		}
	}
}

func FuzzQuote(f *testing.F) {
	f.Add("a\"b\\c\n\x00\x7f\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		q, err := quote(s)
		if err != nil {
			return
		}
		checkQuoted(t, s, q)
	})
}

// checkQuoted reads the string back with the reader that the guest has.
func checkQuoted(t *testing.T, s, q string) {
	t.Helper()
	tree, err := toml.ParseFile("quoted", []byte("k = "+q+"\n"))
	if err != nil || tree.Get("k").Text != s {
		t.Errorf("%q: %s, %v", s, q, err)
	}
}
