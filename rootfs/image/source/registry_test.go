package source

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// server is a registry on the loopback interface; it wants a password if one is given.
func server(t testing.TB, password string) string {
	t.Helper()
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, got, _ := r.BasicAuth(); got != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		s.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		remote.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return strings.TrimPrefix(s.URL, "http://")
}

func push(t testing.TB, where string, img v1.Image, o ...remote.Option) {
	t.Helper()
	ref, err := name.ParseReference(where)
	must(t, err)
	must(t, remote.Write(ref, img, o...))
}

func TestRegistry(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir()) // anonymous, whoever runs this
	t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(t.TempDir(), "none"))
	host := server(t, "")
	img := made(t, "amd64")
	push(t, host+"/team/app:v1", img)
	digest, err := img.Digest()
	must(t, err)
	for _, text := range []string{host + "/team/app:v1", "docker://" + host + "/team/app:v1", "registry:" + host + "/team/app@" + digest.String()} {
		checkMade(t, text, amd64, "amd64")
	}
	ref, err := name.ParseReference(host + "/team/multi:v1")
	must(t, err)
	must(t, remote.WriteIndex(ref, mutate.AppendManifests(empty.Index, forPlatform(t, "arm64", "v8"), forPlatform(t, "amd64", ""))))
	checkMade(t, host+"/team/multi:v1", Options{Platform: "linux/arm64"}, "arm64")
	for text, want := range map[string]string{host + "/team/none:v1": "check name and tag", host + "/team/app:v1@bad": "want HOST/NAME:TAG"} {
		if _, _, err := read(t, text, amd64); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v does not say %q", text, err, want)
		}
	}
}

// The user's credentials are those of docker's own file.
func TestRegistryCredentials(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(t.TempDir(), "none"))
	host := server(t, "sesame")
	push(t, host+"/app:v1", made(t, "amd64"), remote.WithAuth(&authn.Basic{Username: "u", Password: "sesame"}))
	if _, _, err := read(t, host+"/app:v1", amd64); err == nil || !strings.Contains(err.Error(), "docker login") {
		t.Errorf("without credentials: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"auths": {"`+host+`": {"username": "u", "password": "sesame"}}}`), 0o600))
	checkMade(t, host+"/app:v1", amd64, "amd64")
}

// A registry, or someone on the way, that sends other bytes than the digest says.
func TestRegistryTampers(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	host := server(t, "")
	img := made(t, "amd64")
	push(t, host+"/app:v1", img)
	layers, err := img.Layers()
	must(t, err)
	victim, err := layers[1].Digest()
	must(t, err)
	for how, change := range map[string]func([]byte) []byte{
		"other bytes": func(b []byte) []byte { b = bytes.Clone(b); b[len(b)-3] ^= 1; return b },
		"cut short":   func(b []byte) []byte { return b[:len(b)-4] },
		"more":        func(b []byte) []byte { return append(bytes.Clone(b), 'x') },
	} {
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			answer, err := http.Get("http://" + host + r.URL.Path)
			if err != nil {
				t.Error(err)
				return
			}
			defer answer.Body.Close()
			body, _ := io.ReadAll(answer.Body)
			if strings.HasSuffix(r.URL.Path, victim.Hex) {
				body = change(body)
			}
			w.Header().Set("Content-Type", answer.Header.Get("Content-Type"))
			w.WriteHeader(answer.StatusCode)
			_, _ = w.Write(body)
		}))
		if _, _, err := read(t, strings.TrimPrefix(proxy.URL, "http://")+"/app:v1", amd64); err == nil {
			t.Errorf("%s: accepted", how)
		}
		proxy.Close()
	}
}
