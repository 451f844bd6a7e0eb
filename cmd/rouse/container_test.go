package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/u-root/u-root/pkg/cpio"

	"rouse/config/toml"
	"rouse/rootfs/image"
	"rouse/rootfs/image/source"
	"rouse/vmm"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// static is a static ELF program as far as anyone looks.
func static(t testing.TB) string {
	t.Helper()
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	must(t, binary.Write(&b, binary.LittleEndian, h))
	return put(t, filepath.Join(t.TempDir(), "server"), b.String(), 0o755)
}

func put(t testing.TB, name, text string, mode os.FileMode) string {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	must(t, os.WriteFile(name, []byte(text), mode))
	return name
}

// container writes an OCI layout of an image whose one layer has the files NAME=TEXT; a TEXT that begins with "!" is executable.
func container(t testing.TB, c v1.Config, files ...string) string {
	t.Helper()
	elfText, err := os.ReadFile(static(t))
	must(t, err)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range append(files, "bin/sh=!", "etc/passwd=root:x:0:0::/:/bin/sh\nweb:x:33:33::/:/bin/sh\n", "etc/group=root:x:0:\nweb:x:33:\n") {
		name, text, _ := strings.Cut(f, "=")
		h := &tar.Header{Name: name, Mode: 0o644}
		if strings.HasPrefix(text, "!") {
			h.Mode = 0o755
			if text = text[1:]; text == "" {
				text = string(elfText)
			}
		}
		h.Size = int64(len(text))
		must(t, w.WriteHeader(h))
		_, err := io.WriteString(w, text)
		must(t, err)
	}
	must(t, w.Close())
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	must(t, err)
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64", Config: c})
	must(t, err)
	img, err = mutate.AppendLayers(img, l)
	must(t, err)
	dir := filepath.Join(t.TempDir(), "layout")
	_, err = layout.Write(dir, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img}))
	must(t, err)
	return dir
}

// built runs the command and returns image.json and the files of the initrd.
func built(t testing.TB, args ...string) (made, map[string]string, error) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "image")
	kernel := put(t, filepath.Join(t.TempDir(), "vmlinuz"), "kernel", 0o644)
	var text, diag bytes.Buffer
	args = append([]string{"--json", "build", "-o", out, "--kernel", kernel, "--init", static(t)}, args...)
	if err := run(args, &text, &diag); err != nil {
		if left, err := filepath.Glob(filepath.Join(out, ".*.*")); err != nil || len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
		return made{}, nil, err
	}
	var m made
	file, err := os.ReadFile(filepath.Join(out, imageFile))
	must(t, err)
	must(t, json.Unmarshal(file, &m))
	archive, err := os.ReadFile(filepath.Join(out, vmm.InitrdFile))
	must(t, err)
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(archive)))
	must(t, err)
	files := map[string]string{}
	for _, r := range records {
		b, err := io.ReadAll(io.NewSectionReader(r, 0, int64(r.FileSize)))
		must(t, err)
		files["/"+r.Name] = string(b)
	}
	return m, files, nil
}

// body is a generated file without its first lines, which name digests.
func body(text string) string {
	_, after, _ := strings.Cut(text, "[[service]]\n")
	return after
}

func TestContainerConfiguration(t *testing.T) {
	nginx := v1.Config{Entrypoint: []string{"/docker-entrypoint.sh"}, Cmd: []string{"nginx", "-g", "daemon off;"}, Env: []string{"PATH=/opt/bin:/bin", "V=1\t\"quoted\""},
		ExposedPorts: map[string]struct{}{"443/tcp": {}, "80": {}, "53/udp": {}}, StopSignal: "SIGQUIT", User: "web:33", WorkingDir: "/srv/new", Volumes: map[string]struct{}{"/data": {}}}
	health := v1.Config{Cmd: []string{"app"}, Env: nginx.Env, StopSignal: "3", ExposedPorts: nginx.ExposedPorts,
		Healthcheck: &v1.HealthConfig{Test: []string{"CMD-SHELL", "probe || exit 1"}, Interval: 5 * time.Second, Retries: 2, StartPeriod: time.Minute}}
	files := []string{"docker-entrypoint.sh=!#!/bin/sh\n", "opt/bin/nginx=!", "opt/bin/app=!", "opt/bin/probe=!"}
	tests := map[string]struct {
		c    v1.Config
		user string
		want string // of /etc/rouse.toml
		env  string // of 99-env.toml
	}{
		"all": {nginx, "", `name = "main"
env = ["PATH=/opt/bin:/bin", "V=1\u0009\"quoted\""]
exec = ["/docker-entrypoint.sh", "nginx", "-g", "daemon off;"]
dir = "/srv/new"
user = "web"
group = "33"
stop-signal = "QUIT"
ready = "port"
ready-port = 80
`, ""},
		"health": {health, "", `name = "main"
env = ["PATH=/opt/bin:/bin", "V=1\u0009\"quoted\""]
exec = ["/opt/bin/app"]
stop-signal = "QUIT"
health.check = "exec"
health.exec = ["/bin/sh", "-c", "probe || exit 1"]
health.interval = "5s"
health.retries = 2
ready-timeout = "1m0s"
ready = "exec"
ready-exec = ["/bin/sh", "-c", "probe || exit 1"]
`, ""},
		"user above": {nginx, "[[service]]\nname = \"main\"\nready = \"notify\"\nuser = \"0\"\ndir = \"/bin\"\nenv = [\"V=2\", \"W=3\"]\n", `name = "main"
exec = ["/docker-entrypoint.sh", "nginx", "-g", "daemon off;"]
stop-signal = "QUIT"
`, `name = "main"
env = ["PATH=/opt/bin:/bin", "V=2", "W=3"]
`},
		"other name": {v1.Config{Cmd: []string{"app"}, Env: nginx.Env[:1]}, "[[service]]\nname = \"web\"\nready = \"started\"\n", `name = "web"
env = ["PATH=/opt/bin:/bin"]
exec = ["/opt/bin/app"]
`, ""},
		"user's command": {v1.Config{Cmd: []string{"app"}, WorkingDir: "/opt"}, "[[service]]\nname = \"main\"\nexec = [\"/bin/sh\"]\n", `name = "main"
dir = "/opt"
`, ""},
		"beside others": {v1.Config{Cmd: []string{"./app"}, WorkingDir: "opt/bin"}, "[[service]]\nname = \"main\"\n[[service]]\nname = \"other\"\nexec = [\"/bin/sh\"]\n", `name = "main"
exec = ["/opt/bin/app"]
dir = "/opt/bin"
`, ""},
		"user's path": {v1.Config{Cmd: []string{"app"}, Env: []string{"A=b"}}, "[[service]]\nname = \"main\"\nenv = [\"PATH=/opt/bin\"]\n", `name = "main"
exec = ["/opt/bin/app"]
`, `name = "main"
env = ["A=b", "PATH=/opt/bin"]
`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			args := []string{container(t, tt.c, files...)}
			if tt.user != "" {
				args = append(args, "-c", put(t, filepath.Join(t.TempDir(), "rouse.toml"), tt.user, 0o644))
			}
			m, got, err := built(t, args...)
			must(t, err)
			if body(got["/etc/rouse.toml"]) != tt.want || body(got[envFile]) != tt.env {
				t.Errorf("rouse.toml:\n%s\nwant:\n%s\nenv:\n%s\nwant:\n%s", got["/etc/rouse.toml"], tt.want, got[envFile], tt.env)
			}
			if body(m.Configuration) != tt.want {
				t.Errorf("image.json has %q", m.Configuration)
			}
			if got[buildFile] != tt.user {
				t.Errorf("the user's file is %q", got[buildFile])
			}
			if !strings.HasPrefix(m.Source, "sha256:") || m.Platform != "linux/amd64" || m.Files[vmm.InitrdFile].Bytes == 0 {
				t.Errorf("%+v", m)
			}
			for _, v := range []string{"/data", "/srv/new"} {
				if _, there := got[v]; there != (slices.Contains([]string{"all", "user above"}, name) && (v == "/data" || name == "all")) {
					t.Errorf("%s: there %v", v, there)
				}
			}
		})
	}
}

// The user's services alone: the image's command is not run, and one is told.
func TestContainerWithOtherServices(t *testing.T) {
	user := put(t, filepath.Join(t.TempDir(), "rouse.toml"), "[[service]]\nname = \"other\"\nexec = [\"/bin/sh\"]\n", 0o644)
	m, got, err := built(t, container(t, v1.Config{Cmd: []string{"sh"}}), "-c", user)
	must(t, err)
	if !slices.Equal(m.Services, []string{"other"}) || len(m.Notes) != 1 || !strings.Contains(m.Notes[0], "own command is not run") || !strings.Contains(got["/etc/rouse.toml"], "other") {
		t.Errorf("services %q, notes %q", m.Services, m.Notes)
	}
}

// Every refusal names the place and the cure.
func TestBuildRefusesContainers(t *testing.T) {
	web := v1.Config{Cmd: []string{"web"}}
	tests := map[string]struct {
		c     v1.Config
		files []string
		user  string
		want  string
	}{
		"no command":        {v1.Config{}, nil, "", "names no command (ENTRYPOINT or CMD)"},
		"not in PATH":       {web, nil, "", "web: no such program in the image's PATH (/usr/local/sbin"},
		"no loader":         {web, []string{"bin/web=!#!/usr/bin/python3\n"}, "", "the image's own configuration:4: service[0].exec: /bin/web: its interpreter /usr/bin/python3: it is not in the image"},
		"not executable":    {v1.Config{Cmd: []string{"/bin/web"}}, []string{"bin/web=x"}, "", "chmod +x"},
		"user":              {v1.Config{Cmd: []string{"sh"}, User: "nobody"}, nil, "", `service[0].user: no user "nobody" in the image's /etc/passwd`},
		"user's user":       {v1.Config{Cmd: []string{"sh"}}, nil, "\n[[service]]\nname = \"main\"\nuser = \"app\"\n", `rouse.toml:4: service[0].user: no user "app"`},
		"user's group":      {v1.Config{Cmd: []string{"sh"}, User: "root:wheel"}, nil, "", `no group "wheel"`},
		"user's groups":     {v1.Config{Cmd: []string{"sh"}}, nil, "\n[[service]]\nname = \"main\"\ngroups = [\"web\", \"wheel\"]\n", `rouse.toml:4: service[0].groups[1]: no group "wheel"`},
		"hook's user":       {v1.Config{Cmd: []string{"sh"}}, nil, "[[service]]\nname = \"main\"\nready = \"started\"\nafter-restore = [{exec = [\"/bin/sh\"], user = \"app\"}]\n", `rouse.toml:4: service[0].after-restore[0].user: no user "app"`},
		"user's folder":     {v1.Config{Cmd: []string{"sh"}}, nil, "[[service]]\nname = \"main\"\ndir = \"/nowhere\"\n", "rouse.toml:3: service[0].dir: no folder /nowhere in the image"},
		"user's program":    {v1.Config{Cmd: []string{"sh"}}, nil, "[[service]]\nname = \"a\"\nexec = [\"/nope\"]\n", "rouse.toml:3: service[0].exec: /nope: it is not in the image"},
		"user's hook":       {v1.Config{Cmd: []string{"sh"}}, nil, "[[service]]\nname = \"main\"\nready = \"started\"\nafter-restore = [{exec = [\"/hook\"]}]\n", "rouse.toml:4: service[0].after-restore[0].exec: /hook"},
		"unknown key":       {v1.Config{Cmd: []string{"sh"}}, nil, "[[service]]\nname = \"main\"\nredy = \"x\"\n", "rouse.toml:3: service[0].redy: no such key; did you mean ready?"},
		"bad value":         {v1.Config{Cmd: []string{"sh"}}, nil, "[[service]]\nname = \"main\"\nready = \"maybe\"\n", `rouse.toml:3: service[0].ready: "maybe" is not allowed`},
		"two without exec":  {v1.Config{Cmd: []string{"sh"}}, nil, "[[service]]\nname = \"a\"\n[[service]]\nname = \"b\"\n", "service[0].exec: nothing to run"},
		"own configuration": {v1.Config{Cmd: []string{"sh"}}, []string{"etc/rouse.toml=x\n"}, "", "image:/etc/rouse.toml:1"},
		"no text":           {v1.Config{Cmd: []string{"sh", "\x00"}}, nil, "", "no text that a configuration can hold"},
		"volume":            {v1.Config{Cmd: []string{"sh"}, Volumes: map[string]struct{}{"/bin/sh": {}}}, nil, "", "/bin/sh: the image has it, and not as a folder"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			args := []string{container(t, tt.c, tt.files...)}
			if tt.user != "" {
				args = append(args, "-c", put(t, filepath.Join(t.TempDir(), "rouse.toml"), tt.user, 0o644))
			}
			_, _, err := built(t, args...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v\ndoes not say %q", err, tt.want)
			}
			if err != nil && strings.HasPrefix(err.Error(), "image: ") && strings.Contains(tt.want, ".toml:") {
				t.Errorf("error %q does not begin with its place", err)
			}
		})
	}
	for name, c := range map[string]struct{ args, want string }{
		"nothing":      {"", "nothing to make an image of"},
		"typo":         {"sever", "no such file or folder; an image of a registry is docker://sever"},
		"size":         {"x --max-size 5X", "--max-size 5X: want a size"},
		"free":         {"x --free 0", "--free 0: want a size"},
		"dynamic":      {"bin:" + put(t, filepath.Join(t.TempDir(), "script"), "#!/bin/sh\n", 0o755), "the program's own configuration:4: service[0].exec: /usr/bin/script: its interpreter /bin/sh"},
		"two folders":  {"/tmp --root /tmp", "two folders"},
		"other system": {"oci:" + container(t, web) + " --platform linux/arm64", "it is for linux/amd64, and the guest is linux/arm64"},
	} {
		if _, _, err := built(t, strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v does not say %q", name, err, c.want)
		}
	}
}

// Whatever an image says of itself: a refusal, or a configuration that the guest's reader reads, with the same words in it.
func FuzzContainerConfiguration(f *testing.F) {
	f.Add([]byte(`{"Entrypoint":["sh"],"Cmd":["a","\u0007\"\\"],"Env":["PATH=/bin","A","=b","C=\n"],"User":"1:2","WorkingDir":"../x","StopSignal":"9","ExposedPorts":{"80/tcp":{},"9-1":{},"x":{}},"Healthcheck":{"Test":["CMD","sh"],"Interval":1,"Retries":3,"StartPeriod":99000000000}}`), "[[service]]\nname = \"main\"\nenv = [\"C=d\"]\n")
	f.Add([]byte(`{"Cmd":["sh"],"Healthcheck":{"Test":["CMD-SHELL","x"]},"Shell":["sh","-ec"],"Volumes":{"/a":{},"b":{}}}`), "")
	layer, err := source.Parse(container(f, v1.Config{}))
	must(f, err)
	in, err := source.Open(f.Context(), layer, source.Options{Platform: "linux/amd64"})
	must(f, err)
	var contents *image.Contents
	img, err := image.New(image.Spec{Init: static(f), Layers: in.Layers, Choose: func(c *image.Contents) (image.Choice, error) {
		contents = c
		return image.Choice{}, nil
	}})
	must(f, err)
	f.Cleanup(func() { img.Close() })
	f.Fuzz(func(t *testing.T, text []byte, user string) {
		p := &plan{container: &source.Image{}, file: "rouse.toml", text: []byte(user)}
		if json.Unmarshal(text, &p.container.Config) != nil {
			return
		}
		tree, err := p.userTree(nil)
		if err != nil {
			return
		}
		s, err := p.says(contents, tree)
		if err != nil || s == nil {
			return
		}
		for _, text := range [][]byte{s.text, s.env} {
			own, err := toml.ParseFile("own", text)
			if err != nil {
				t.Fatalf("%v in\n%s", err, text)
			}
			exec, argv := own.At("service[0].exec"), slices.Concat(p.container.Config.Entrypoint, p.container.Config.Cmd)
			if !own.Has("service[0].exec") {
				continue
			}
			if len(exec.List) != len(argv) {
				t.Fatalf("%q became\n%s", argv, text)
			}
			for i := 1; i < len(argv); i++ {
				if exec.List[i].Text != argv[i] {
					t.Fatalf("%q became %q", argv[i], exec.List[i].Text)
				}
			}
		}
	})
}
