//go:build vm

package vmtest

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"rouse/vmm"
)

// rouse builds the host command and runs it.
func rouse(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := os.Stat(lab.Binary("rouse")); err != nil {
		if err := lab.goTool("build", "-o", lab.Binary("rouse"), "./cmd/rouse"); err != nil {
			t.Fatal(err)
		}
	}
	text, err := exec.Command(lab.Binary("rouse"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("rouse %q: %v\n%s", args, err, text)
	}
	return string(text)
}

// buildImage is rouse build of an input with a kernel.
func buildImage(t *testing.T, series, input, configuration string, more ...string) string {
	t.Helper()
	kernel, dir := lab.Kernel(t, series), t.TempDir()
	out := filepath.Join(dir, "image")
	args := []string{"build", input, "-o", out, "--kernel", filepath.Join(kernel, "vmlinuz"), "--modules", filepath.Join(kernel, "modules")}
	if configuration != "" {
		file := filepath.Join(dir, "rouse.toml")
		if err := os.WriteFile(file, []byte(configuration), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-c", file)
	}
	t.Log(rouse(t, append(args, more...)...))
	return out
}

// layer makes a layer of a tar stream that can be had again and again.
func layer(t *testing.T, open func() (io.ReadCloser, error)) v1.Layer {
	t.Helper()
	l, err := tarball.LayerFromOpener(open)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func layerOf(t *testing.T, files ...tar.Header) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range files {
		text := h.Uname // carries the content
		h.Uname, h.Size = "", int64(len(text))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return layer(t, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
}

func containerImage(t *testing.T, c v1.Config, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64", Config: c})
	if err != nil {
		t.Fatal(err)
	}
	if img, err = mutate.AppendLayers(img, layers...); err != nil {
		t.Fatal(err)
	}
	return img
}

// nginxFolder is the example's.
func nginxFolder() string { return filepath.Join(lab.root, "examples", "nginx") }

func readExample(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(nginxFolder(), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// nginxPackages are Debian's, downloaded once.
func nginxPackages(t *testing.T) []string {
	t.Helper()
	for _, tool := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is missing: Debian's nginx is had by it", tool)
		}
	}
	dir := filepath.Join(lab.root, "out", "debs")
	if text, err := exec.Command("sh", filepath.Join(nginxFolder(), "fetch.sh"), dir).CombinedOutput(); err != nil {
		t.Fatalf("packages of nginx: %v\n%s", err, text)
	}
	list, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(list) == 0 {
		t.Fatalf("no packages in %s: %v", dir, err)
	}
	return list
}

// nginxArchive is an OCI archive of Debian's nginx, as a container build would make it: a layer for each package, and one
// with what is configured.
func nginxArchive(t *testing.T) string {
	t.Helper()
	var layers []v1.Layer
	for _, deb := range nginxPackages(t) {
		layers = append(layers, layer(t, func() (io.ReadCloser, error) {
			text, err := exec.Command("dpkg-deb", "--fsys-tarfile", deb).Output()
			return io.NopCloser(bytes.NewReader(text)), err
		}))
	}
	cert, key := certificate(t)
	files := []tar.Header{
		{Name: "etc/nginx/nginx.conf", Mode: 0o644, Uname: readExample(t, "nginx.conf")},
		{Name: "usr/local/sbin/renew-secrets", Mode: 0o755, Uname: readExample(t, "renew-secrets")},
		{Name: "etc/nginx/tls/cert.pem", Mode: 0o644, Uname: cert}, {Name: "etc/nginx/tls/key.pem", Mode: 0o600, Uname: key},
		{Name: "etc/passwd", Mode: 0o644, Uname: "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\n"},
		{Name: "etc/group", Mode: 0o644, Uname: "root:x:0:\nwww-data:x:33:\n"},
		{Name: "usr/share/doc/.wh..wh..opq"}, // nobody reads it here
	}
	for _, name := range []string{"sh", "cat", "head", "kill", "mkdir", "mv", "sleep"} {
		files = append(files, tar.Header{Name: "bin/" + name, Typeflag: tar.TypeLink, Linkname: "bin/busybox"})
	}
	img := containerImage(t, v1.Config{Entrypoint: []string{"nginx"}, Cmd: []string{"-e", "stderr", "-g", "daemon off;"}, StopSignal: "SIGQUIT",
		ExposedPorts: map[string]struct{}{"443/tcp": {}}}, append(layers, layerOf(t, files...))...)
	dir := filepath.Join(t.TempDir(), "layout")
	if _, err := layout.Write(dir, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img})); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "nginx.tar")
	if text, err := exec.Command("tar", "-C", dir, "-cf", archive, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, text)
	}
	return archive
}

func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}, NotBefore: time.Unix(0, 0), NotAfter: time.Now().AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

// nginxConfiguration is the example's, with the parts that the container image says itself left to it.
func nginxConfiguration(t *testing.T, hook bool) string {
	t.Helper()
	text := readExample(t, "rouse.toml")
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, `exec = ["/usr/sbin/nginx"`) || strings.HasPrefix(line, "stop-signal") || strings.HasPrefix(line, "ready") {
			text = strings.Replace(text, line+"\n", "", 1)
		}
	}
	if !hook {
		text, _, _ = strings.Cut(text, "# In every clone")
	}
	return text + "\n[quiesce]\ntimeout = \"60s\"\n"
}

// sessions keeps the last TLS session.
type sessions struct{ last *tls.ClientSessionState }

func (s *sessions) Get(string) (*tls.ClientSessionState, bool)  { return s.last, s.last != nil }
func (s *sessions) Put(_ string, state *tls.ClientSessionState) { s.last = state }

// visit is one request on a connection of its own: the server's random number, the name of the key that sealed the session's
// ticket (its first 16 bytes: RFC 5077, section 4, as OpenSSL has it), and whether the session was taken up again.
func visit(t *testing.T, port uint16, s *sessions) (random, key string, resumed bool) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "localhost",
		MaxVersion: tls.VersionTLS12, ClientSessionCache: s}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Timeout: 2 * time.Minute, Transport: transport}
	resp, err := client.Get(fmt.Sprintf("https://127.0.0.1:%d/random", port))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || len(strings.TrimSpace(string(text))) != 32 {
		t.Fatalf("answer %q, %v", text, err)
	}
	if s.last == nil {
		t.Fatal("the server gave no session ticket")
	}
	ticket, _, err := s.last.ResumptionState()
	if err != nil || len(ticket) < 16 {
		t.Fatalf("ticket %x: %v", ticket, err)
	}
	return strings.TrimSpace(string(text)), hex.EncodeToString(ticket[:16]), resp.TLS.DidResume
}

// bakeWarm bakes a server that has served: OpenSSL makes a process's random generator when it is first needed, and a worker that
// has not drawn yet has nothing that two clones could share.
func bakeWarm(t *testing.T, img string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "snapshot")
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	warm := func(ctx context.Context, vm *vmm.VM) error {
		forwards, err := vm.Forwards(ctx)
		if err != nil {
			return err
		}
		for range 3 {
			visit(t, forwards[0].HostPort, &sessions{})
		}
		return nil
	}
	_, err := vmm.Bake(ctx, vmm.BakeConfig{Image: img, Output: out, BootTimeout: 2 * time.Minute, Warm: warm, VM: vmm.Config{Forwards: []vmm.Forward{{GuestPort: 443}}}})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Debian's nginx from a container image, baked and cloned twice: with the example's hook nothing is alike, and without it the very
// faults show that the hook is there for.
func TestNginx(t *testing.T) {
	archive := nginxArchive(t)
	t.Run("with hook", func(t *testing.T) {
		snapshot := bakeWarm(t, buildImage(t, "6.1", archive, nginxConfiguration(t, true), "--format", "squashfs"))
		clones := Clone(t, snapshot, 2)
		var seen []string
		var kept [2]*sessions
		for i, c := range clones {
			kept[i] = &sessions{}
			random, key, _ := visit(t, c.Forwards[0].HostPort, kept[i])
			if slices.Contains(seen, random) || slices.Contains(seen, key) {
				t.Errorf("clone %d repeats: random %s, ticket key %s, others %q", i, random, key, seen)
			}
			seen = append(seen, random, key)
			// Its own ticket is taken, so that tickets do work.
			if _, _, resumed := visit(t, c.Forwards[0].HostPort, kept[i]); !resumed {
				t.Errorf("clone %d does not take its own ticket", i)
			}
			checkOrder(t, Report(t, c.Report))
		}
		if _, _, resumed := visit(t, clones[1].Forwards[0].HostPort, kept[0]); resumed {
			t.Error("a clone takes the other's ticket")
		}
		_ = vmm.CloseAll(clones)
		for _, c := range clones {
			checkSilence(t, c)
		}
	})
	t.Run("without hook", func(t *testing.T) {
		snapshot := bakeWarm(t, buildImage(t, "6.12", archive, nginxConfiguration(t, false)))
		clones := Clone(t, snapshot, 2)
		kept := &sessions{}
		random0, key0, _ := visit(t, clones[0].Forwards[0].HostPort, &sessions{})
		random1, key1, _ := visit(t, clones[1].Forwards[0].HostPort, kept)
		t.Logf("random %s and %s, ticket key %s and %s", random0, random1, key0, key1)
		if key0 != key1 || random0 != random1 {
			t.Error("not both are alike without the hook: the test above proves nothing")
		}
		if _, _, resumed := visit(t, clones[0].Forwards[0].HostPort, kept); !resumed {
			t.Error("a clone does not take the other's ticket, though both have one key")
		}
	})
}

// start boots an image with its disk, and a guest port that is reached at the port that is returned.
func start(t *testing.T, img string, guest uint16) (*vmm.VM, uint16) {
	t.Helper()
	vm := Boot(t, img, func(c *vmm.Config) {
		c.Cmdline += " ip=10.0.2.15::10.0.2.2:255.255.255.0:::off"
		c.Forwards = []vmm.Forward{{GuestPort: guest}}
		for _, format := range []string{"ext4", "squashfs"} {
			disk := filepath.Join(img, "root."+format)
			if _, err := os.Stat(disk); err == nil {
				c.Disks = append(c.Disks, vmm.Disk{Path: disk, Format: "raw", ReadOnly: format == "squashfs"})
			}
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	forwards, err := vm.Forwards(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if s, _ := Talk(t, vm).Wait("running"); s.State != "running" {
		t.Fatalf("status %+v", s)
	}
	return vm, forwards[0].HostPort
}

// Both kinds of disk, by the example's own script: a kernel with drivers as modules, and one with them built in.
func TestDiskRoots(t *testing.T) {
	nginxPackages(t)
	work := t.TempDir()
	if err := os.Symlink(filepath.Join(lab.root, "out", "debs"), filepath.Join(work, "debs")); err != nil {
		t.Fatal(err)
	}
	rouse(t, "--help") // built
	for series, format := range map[string]string{"6.1": "ext4", "6.12": "squashfs"} {
		t.Run(format, func(t *testing.T) {
			kernel, img := lab.Kernel(t, series), filepath.Join(t.TempDir(), "image")
			build := exec.Command("sh", filepath.Join(nginxFolder(), "build.sh"), img, "--kernel", filepath.Join(kernel, "vmlinuz"), "--modules", filepath.Join(kernel, "modules"), "--format", format)
			build.Env = append(os.Environ(), "ROUSE="+lab.Binary("rouse"), "WORK="+work)
			if text, err := build.CombinedOutput(); err != nil {
				t.Fatalf("build.sh: %v\n%s", err, text)
			}
			_, port := start(t, img, 443)
			if _, _, resumed := visit(t, port, &sessions{}); resumed {
				t.Error("a new session is an old one")
			}
		})
	}
}

// A container image from a registry keeps all that it says of itself: entrypoint by PATH, arguments, environment, user, folder,
// volume, health check, port, and the file capability by which its user may take port 80.
func TestContainerSemantics(t *testing.T) {
	if err := lab.goTool("build", "-o", lab.Binary("container"), "./internal/vmtest/testdata/container"); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(lab.Binary("container"))
	if err != nil {
		t.Fatal(err)
	}
	// struct vfs_cap_data, linux/include/uapi/linux/capability.h: revision 2, effective; CAP_NET_BIND_SERVICE is bit 10.
	bind := map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
	img := containerImage(t, v1.Config{Entrypoint: []string{"server"}, Cmd: []string{"one", "two words"}, Env: []string{"PATH=/opt/bin:/bin", "GREETING=\"hello\"\nworld", "EXTRA=image"},
		User: "web:staff", WorkingDir: "/srv/work", Volumes: map[string]struct{}{"/data": {}}, ExposedPorts: map[string]struct{}{"80/tcp": {}},
		Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "server", "probe"}, Interval: time.Second}},
		layerOf(t, tar.Header{Name: "opt/bin/server", Mode: 0o755, Uname: string(program), PAXRecords: bind},
			tar.Header{Name: "data/", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 1000, Gid: 50},
			tar.Header{Name: "etc/passwd", Mode: 0o644, Uname: "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n"},
			tar.Header{Name: "etc/group", Mode: 0o644, Uname: "root:x:0:\nstaff:x:50:\n"}))
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	where := strings.TrimPrefix(server.URL, "http://") + "/team/app:v1"
	ref, err := name.ParseReference(where)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	_, port := start(t, buildImage(t, "6.12", where, "[[service]]\nname = \"main\"\nenv = [\"EXTRA=user\"]\n", "--format", "squashfs"), 80)
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"args": []any{"/opt/bin/server", "one", "two words"}, "uid": 1000.0, "gid": 50.0, "dir": "/srv/work", "greeting": "\"hello\"\nworld",
		"extra": "user", "path": "/opt/bin:/bin", "home": "/home/web", "note": "<nil>"}
	for key, v := range want {
		if fmt.Sprint(got[key]) != fmt.Sprint(v) {
			t.Errorf("%s: %v, want %v", key, got[key], v)
		}
	}
}
