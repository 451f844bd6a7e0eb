package oci

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"rouse/vmm"
)

// TestMain is a registry too, as a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("ROUSE_TEST_REGISTRY") != "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(l.Addr())
		log.Fatal(http.Serve(l, registry.New(registry.Logger(log.New(io.Discard, "", 0)))))
	}
	os.Exit(m.Run())
}

// goRegistry is go-containerregistry's registry in a process.
func goRegistry(t *testing.T) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "ROUSE_TEST_REGISTRY=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	run(t, cmd)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
}

// dockerRegistry is the registry that most others descend from (Debian's docker-registry).
func dockerRegistry(t *testing.T) string {
	t.Helper()
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("needs Debian's docker-registry:", err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := "version: 0.1\nlog: {level: info, formatter: json}\nstorage: {filesystem: {rootdirectory: " + dir + "/data}}\nhttp: {addr: 127.0.0.1:0}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "serve", config)
	diag, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	run(t, cmd)
	const mark = "listening on "
	for s := bufio.NewScanner(diag); s.Scan(); {
		if _, rest, ok := strings.Cut(s.Text(), mark); ok {
			go io.Copy(io.Discard, diag)
			return rest[:strings.IndexAny(rest, `" ,`)]
		}
	}
	t.Fatal("docker-registry ended")
	return ""
}

// relay counts and breaks what goes to a registry.
type relay struct {
	host            string
	uploads, blobs  atomic.Int64
	failAfterGets   atomic.Int64 // blobs, if above zero
	failAfterBegins atomic.Int64 // uploads, if above zero
	corrupt         atomic.Bool  // change a byte of every blob
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{host: l.Addr().String()}
	s := &http.Server{Handler: r.handler(to)}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return r
}

func (r *relay) handler(to string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		blob := q.Method == http.MethodGet && strings.Contains(q.URL.Path, "/blobs/sha256:")
		begin := q.Method == http.MethodPost && strings.HasSuffix(q.URL.Path, "/blobs/uploads/")
		if blob && over(&r.blobs, &r.failAfterGets) || begin && over(&r.uploads, &r.failAfterBegins) {
			http.Error(w, `{"errors":[{"code":"DENIED"}]}`, http.StatusForbidden) // not one that is tried again
			return
		}
		q.URL.Scheme, q.URL.Host, q.RequestURI = "http", to, ""
		resp, err := http.DefaultTransport.RoundTrip(q)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		for k, v := range resp.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(resp.StatusCode)
		body, _ := io.ReadAll(resp.Body)
		if blob && r.corrupt.Load() && len(body) > 0 {
			body[len(body)/2] ^= 1
		}
		w.Write(body)
	})
}

func over(count, limit *atomic.Int64) bool {
	n, l := count.Add(1), limit.Load()
	return l > 0 && n > l
}

// snapshot makes a folder as bake does: some text, and memory of which half is zero.
func newSnapshot(t *testing.T, seed uint64) string {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	memory := make([]byte, 6*small+4096)
	for i := range memory[:2*small] {
		// The first third is what two machines have in common, the second is each one's own.
		memory[i] = byte(i>>4) * byte(i>>12)
	}
	for i := 2 * small; i < 4*small; i++ {
		memory[i] = byte(random.Uint32())
	}
	files := map[string][]byte{vmm.KernelFile: bytes.Repeat([]byte("kernel"), 13000), vmm.InitrdFile: []byte("initrd"), vmm.CmdlineFile: []byte("quiet"),
		vmm.StateFile: {byte(seed)}, vmm.StateFile + ".memory": memory}
	return assemble(t, files)
}

// small chunks keep the tests short.
const small = 64 << 10

func assemble(t *testing.T, files map[string][]byte) string {
	t.Helper()
	m := vmm.Manifest{Version: 2, Files: map[string]vmm.File{}}
	for name, data := range files {
		h, _, err := v1.SHA256(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		m.Files[name] = vmm.File{Size: int64(len(data)), SHA256: h.Hex}
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "snapshot")
	_, err = vmm.Assemble(t.Context(), text, dir, func(dir string, _ vmm.Manifest) error {
		for name, data := range files {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func equal(t *testing.T, a, b string) {
	t.Helper()
	entries, err := os.ReadDir(a)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name()[0] == '.' {
			continue
		}
		x, err1 := os.ReadFile(filepath.Join(a, e.Name()))
		y, err2 := os.ReadFile(filepath.Join(b, e.Name()))
		if err1 != nil || err2 != nil || !bytes.Equal(x, y) {
			t.Errorf("%s differs: %v, %v", e.Name(), err1, err2)
		}
	}
}

func TestRegistries(t *testing.T) {
	for name, start := range map[string]func(*testing.T) string{"docker-registry": dockerRegistry, "go-containerregistry": goRegistry} {
		t.Run(name, func(t *testing.T) {
			host := start(t)
			t.Run("round trip", func(t *testing.T) { testRoundTrip(t, newRelay(t, host)) })
			t.Run("resumed push", func(t *testing.T) { testResumedPush(t, newRelay(t, host)) })
			t.Run("resumed pull", func(t *testing.T) { testResumedPull(t, newRelay(t, host)) })
			t.Run("damaged", func(t *testing.T) { testDamaged(t, newRelay(t, host)) })
			t.Run("foreign", func(t *testing.T) { testForeign(t, newRelay(t, host)) })
		})
	}
}

// testRoundTrip: what is pulled is what was pushed, and a second snapshot costs only what it has of its own.
func testRoundTrip(t *testing.T, r *relay) {
	one, two := newSnapshot(t, 1), newSnapshot(t, 2)
	ref := r.host + "/fleet/web"
	var done atomic.Int64
	byDigest, err := Push(t.Context(), one, ref+":1", Options{chunk: small, Progress: func(n, _ int64) { done.Store(n) }})
	if err != nil {
		t.Fatal(err)
	}
	first := r.uploads.Swap(0)
	if _, err := Push(t.Context(), two, ref+":2", Options{chunk: small}); err != nil {
		t.Fatal(err)
	}
	// Of the second one: config, state, two chunks of memory.
	if n := r.uploads.Load(); n != 4 || first < 6 || done.Load() == 0 {
		t.Errorf("%d uploads for the first, %d for the second; want 4 for the second; progress %d", first, n, done.Load())
	}
	r.uploads.Store(0)
	if again, err := Push(t.Context(), one, ref+":1", Options{chunk: small}); err != nil || again != byDigest || r.uploads.Load() != 0 {
		t.Errorf("a second push: %s, %v, %d uploads; want %s and none", again, err, r.uploads.Load(), byDigest)
	}
	cache, out := t.TempDir(), t.TempDir()
	for i, from := range []string{byDigest, ref + ":2"} {
		r.blobs.Store(0)
		to := filepath.Join(out, fmt.Sprint(i))
		if _, err := Pull(t.Context(), from, to, cache, Options{}); err != nil {
			t.Fatal(err)
		}
		equal(t, []string{one, two}[i], to)
		if n := r.blobs.Load(); i == 1 && n != 4 {
			t.Errorf("%d blobs fetched for the second, want 4", n)
		}
	}
	if _, err := Pull(t.Context(), byDigest, filepath.Join(out, "0"), cache, Options{}); err == nil {
		t.Error("a snapshot was written over")
	}
	if _, err := Pull(t.Context(), ref+":3", filepath.Join(out, "3"), cache, Options{}); err == nil {
		t.Error("a tag that nobody pushed was pulled")
	}
}

func testResumedPush(t *testing.T, r *relay) {
	dir, ref := newSnapshot(t, 3), r.host+"/fleet/resumed-push:1"
	r.failAfterBegins.Store(2)
	if _, err := Push(t.Context(), dir, ref, Options{chunk: small, Jobs: 1}); err == nil {
		t.Fatal("pushed through a registry that refuses")
	}
	if _, err := Pull(t.Context(), ref, filepath.Join(t.TempDir(), "s"), t.TempDir(), Options{}); err == nil {
		t.Error("half a snapshot could be pulled")
	}
	r.failAfterBegins.Store(0)
	before := r.uploads.Swap(0)
	if _, err := Push(t.Context(), dir, ref, Options{chunk: small}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d uploads begun, then %d", before, r.uploads.Load())
	whole := before - 1 + r.uploads.Load()
	fresh := newSnapshot(t, 4)
	r.uploads.Store(0)
	if _, err := Push(t.Context(), fresh, r.host+"/fleet/other:1", Options{chunk: small}); err != nil || r.uploads.Load() != whole {
		t.Errorf("%v; %d uploads in two parts, %d at once: something was sent twice", err, whole, r.uploads.Load())
	}
}

func testResumedPull(t *testing.T, r *relay) {
	dir, ref := newSnapshot(t, 5), r.host+"/fleet/resumed-pull:1"
	if _, err := Push(t.Context(), dir, ref, Options{chunk: small}); err != nil {
		t.Fatal(err)
	}
	parent, cache := t.TempDir(), t.TempDir()
	to := filepath.Join(parent, "s")
	r.failAfterGets.Store(4)
	if _, err := Pull(t.Context(), ref, to, cache, Options{Jobs: 1}); err == nil {
		t.Fatal("pulled through a registry that refuses")
	}
	if left, _ := os.ReadDir(parent); len(left) > 0 {
		t.Errorf("half a snapshot: %v", left)
	}
	r.failAfterGets.Store(0)
	r.blobs.Store(0)
	if _, err := Pull(t.Context(), ref, to, cache, Options{}); err != nil {
		t.Fatal(err)
	}
	equal(t, dir, to)
	resumed := r.blobs.Swap(0)
	if _, err := Pull(t.Context(), ref, to+"2", t.TempDir(), Options{}); err != nil || r.blobs.Load() != resumed+4 {
		t.Errorf("%v; %d blobs at once, %d after 4: something was fetched twice", err, r.blobs.Load(), resumed)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Pull(ctx, ref, to+"3", t.TempDir(), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// testDamaged: neither a registry nor a cache that lies gets a byte into a snapshot.
func testDamaged(t *testing.T, r *relay) {
	dir, ref := newSnapshot(t, 6), r.host+"/fleet/damaged:1"
	if _, err := Push(t.Context(), dir, ref, Options{chunk: small}); err != nil {
		t.Fatal(err)
	}
	parent, cache := t.TempDir(), t.TempDir()
	r.corrupt.Store(true)
	if _, err := Pull(t.Context(), ref, filepath.Join(parent, "s"), cache, Options{}); err == nil {
		t.Error("changed blobs were taken")
	}
	r.corrupt.Store(false)
	if left, _ := os.ReadDir(cache); len(left) > 0 {
		t.Errorf("changed blobs are kept: %v", left)
	}
	if _, err := Pull(t.Context(), ref, filepath.Join(parent, "s"), cache, Options{}); err != nil {
		t.Fatal(err)
	}
	blobs, _ := os.ReadDir(cache)
	for _, b := range blobs {
		if err := os.Truncate(filepath.Join(cache, b.Name()), 3); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Pull(t.Context(), ref, filepath.Join(parent, "s2"), cache, Options{}); err != nil {
		t.Errorf("a damaged cache: %v", err)
	}
	equal(t, dir, filepath.Join(parent, "s2"))
	data, _ := os.ReadFile(filepath.Join(dir, vmm.StateFile))
	data[0]++
	if err := os.WriteFile(filepath.Join(dir, vmm.StateFile), data, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Push(t.Context(), dir, ref, Options{chunk: small}); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged snapshot was pushed: %v", err)
	}
}

func testForeign(t *testing.T, r *relay) {
	ref := r.host + "/fleet/foreign:1"
	to, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(to, empty.Image); err != nil {
		t.Fatal(err)
	}
	if _, err := Pull(t.Context(), ref, filepath.Join(t.TempDir(), "s"), t.TempDir(), Options{}); !errors.Is(err, errForeign) {
		t.Errorf("an image of somebody else: %v", err)
	}
	for _, bad := range []string{"", "UPPER/case", "a b"} {
		if _, err := Push(t.Context(), newSnapshot(t, 7), bad, Options{chunk: small}); err == nil {
			t.Errorf("%q is a reference", bad)
		}
	}
}

// TestLayerRefused: a layer whose annotations lead elsewhere writes nothing.
func TestLayerRefused(t *testing.T) {
	p := &puller{cache: t.TempDir()}
	m := vmm.Manifest{Files: map[string]vmm.File{"state": {Size: 10}}}
	for name, l := range map[string]v1.Descriptor{
		"other file": {MediaType: ChunkType, Annotations: map[string]string{fileKey: "../x", offsetKey: "0"}},
		"beyond":     {MediaType: ChunkType, Annotations: map[string]string{fileKey: "state", offsetKey: "10"}},
		"before":     {MediaType: ChunkType, Annotations: map[string]string{fileKey: "state", offsetKey: "-1"}},
		"no number":  {MediaType: ChunkType, Annotations: map[string]string{fileKey: "state", offsetKey: "x"}},
		"other type": {MediaType: ConfigType, Annotations: map[string]string{fileKey: "state", offsetKey: "0"}},
	} {
		if err := p.layer(t.Context(), t.TempDir(), m, l); err == nil || !strings.Contains(err.Error(), "no such place") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// More bytes than there is room for.
	dir := t.TempDir()
	path := filepath.Join(dir, "long")
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 20), 0o600); err != nil {
		t.Fatal(err)
	}
	data, err := compressed(path, 0, 20)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "blob"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unpack(filepath.Join(dir, "blob"), path, 0, 19); err == nil {
		t.Error("a chunk went beyond its file")
	}
}

func TestChunkSize(t *testing.T) {
	for total, want := range map[int64]int64{0: minChunk, 1 << 30: minChunk, 64 << 30: 16 << 20} {
		if got := chunkSize(total, minChunk); got != want || total/got > maxLayers {
			t.Errorf("%d bytes: chunks of %d, want %d", total, got, want)
		}
	}
}
