package verify

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"rouse/control"
	"rouse/vmm"
)

// certificate is one that all twins have, as clones do.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().AddDate(1, 0, 0)},
		&x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// server is a clone that answers from a generator with a seed, and has ticket keys.
func server(t *testing.T, cert tls.Certificate, seed, ticket byte) *facts {
	t.Helper()
	drbg := mathrand.NewChaCha8([32]byte{seed})
	requests := 1234567890123
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var b [16]byte
		drbg.Read(b[:])
		requests++
		fmt.Fprintf(w, `{"random": %q, "requests": %d, "version": "constant-of-all-7"}`, hex.EncodeToString(b[:]), requests)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.TLS.SetSessionTicketKeys([][32]byte{{ticket}})
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // probes that only want a handshake
	s.StartTLS()
	t.Cleanup(s.Close)
	a := s.Listener.Addr().(*net.TCPAddr)
	return &facts{clone: &vmm.Clone{
		VMGenID: fmt.Sprint("id", seed, ticket, a.Port), Status: control.Status{Generation: 1}, Report: json.RawMessage(goodReport),
		Forwards: []vmm.Forward{{HostIP: "127.0.0.1", HostPort: uint16(a.Port), GuestPort: 443}}},
		services: []service{{"web", "running"}, {"setup", "done"}}, watchers: []watcher{{"web", "webserver", 7, 1}}}
}

const goodReport = `{"phases":[{"name":"entropy"},{"name":"hooks","detail":[{"service":"db"},{"service":"bad","error":"no"}]}]}`

// examine probes two servers as if they were clones.
func examine(t *testing.T, a, b *facts) map[string]Check {
	t.Helper()
	c := Config{Path: "/"}
	for _, f := range []*facts{a, b} {
		f.ports = []answers{c.probe(t.Context(), f.clone.Forwards[0])}
	}
	c.resumeAcross(t.Context(), a, b)
	checks := map[string]Check{}
	for _, k := range c.compare([]*facts{a, b}) {
		checks[k.Name] = k
	}
	return checks
}

// TestProbe has real servers that share what clones share, one thing at a time.
func TestProbe(t *testing.T) {
	cert := certificate(t)
	for name, tt := range map[string]struct {
		a, b [2]byte // seed, ticket key
		want map[string]string
	}{
		"nothing shared": {[2]byte{1, 1}, [2]byte{2, 2}, map[string]string{"random values": Pass, "TLS ticket keys": Pass, "TLS randoms": Pass}},
		"same stream":    {[2]byte{1, 1}, [2]byte{1, 2}, map[string]string{"random values": Fail, "TLS ticket keys": Pass, "TLS randoms": Pass}},
		"same tickets":   {[2]byte{1, 1}, [2]byte{2, 1}, map[string]string{"random values": Pass, "TLS ticket keys": Fail, "TLS randoms": Pass}},
	} {
		t.Run(name, func(t *testing.T) {
			checks := examine(t, server(t, cert, tt.a[0], tt.a[1]), server(t, cert, tt.b[0], tt.b[1]))
			for check, want := range tt.want {
				if k := checks["port 443 "+check]; k.Verdict != want {
					t.Errorf("%s: %+v, want %s", check, k, want)
				}
			}
			if k := checks["port 443 constants"]; k.Verdict != Note || !strings.Contains(k.Values[0], "constant-of-all-7") {
				t.Errorf("constants: %+v", k)
			}
		})
	}
}

func TestProbeMute(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, "220 ready\r\n")
			conn.Close()
		}
	}()
	a := Config{Path: "/"}.probe(t.Context(), vmm.Forward{HostIP: "127.0.0.1", HostPort: uint16(l.Addr().(*net.TCPAddr).Port), GuestPort: 25})
	if a.tls || a.err == nil {
		t.Errorf("%+v, want an error and no TLS", a)
	}
	if k := comparePort([]*facts{{ports: []answers{a}}, {ports: []answers{a}}}, 0); len(k) != 1 || k[0].Verdict != Note || !strings.Contains(k[0].Says, "--exec") {
		t.Errorf("%+v", k)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if a := (Config{}).probe(ctx, vmm.Forward{HostIP: "127.0.0.1", HostPort: 1}); a.err == nil {
		t.Error("cancelled and no error")
	}
}

func TestWatched(t *testing.T) {
	with := func(change func(*facts)) []*facts {
		var all []*facts
		for range 2 {
			f := &facts{clone: &vmm.Clone{Status: control.Status{Generation: 1}}, services: []service{{"web", "running"}}, watchers: []watcher{{"web", "w", 1, 1}}}
			change(f)
			all = append(all, f)
		}
		return all
	}
	for name, tt := range map[string]struct {
		change func(*facts)
		want   string
	}{
		"watched":  {func(*facts) {}, Pass},
		"bare":     {func(f *facts) { f.watchers = nil }, Fail},
		"another":  {func(f *facts) { f.services = append(f.services, service{"db", "running"}) }, Fail},
		"hooked":   {func(f *facts) { f.watchers, f.hooked = nil, []string{"web"} }, Pass},
		"allowed":  {func(f *facts) { f.services = append(f.services, service{"log", "running"}) }, Pass},
		"late":     {func(f *facts) { f.watchers[0].Acknowledged = 0 }, Fail},
		"finished": {func(f *facts) { f.services[0].State, f.watchers = "done", nil }, Pass},
	} {
		if k := (Config{Allow: []string{"log"}}).watched(with(tt.change)); k.Verdict != tt.want {
			t.Errorf("%s: %+v, want %s", name, k, tt.want)
		}
	}
	if got := hooked(json.RawMessage(goodReport)); len(got) != 1 || got[0] != "db" {
		t.Errorf("hooked: %q", got)
	}
}

func TestGenerationAndFiles(t *testing.T) {
	one := func(id, report, boot string) *facts {
		return &facts{clone: &vmm.Clone{VMGenID: id, Report: json.RawMessage(report)}, own: map[string]string{"boot id": boot, "kernel's random stream": boot}}
	}
	a, twin, b := one("a", goodReport, "1"), one("a", goodReport, "1"), one("b", goodReport, "2")
	if k := generation([]*facts{a, b}); k.Verdict != Pass {
		t.Errorf("%+v", k)
	}
	if k := generation([]*facts{a, twin}); k.Verdict != Fail {
		t.Errorf("%+v", k)
	}
	if k := generation([]*facts{a, one("c", `{}`, "")}); k.Verdict != Fail {
		t.Errorf("without reseed: %+v", k)
	}
	for name, want := range map[string]string{"boot id": Note, "kernel's random stream": Fail} {
		if k := compareOwn([]*facts{a, twin}, name); k.Verdict != want {
			t.Errorf("%+v, want %s", k, want)
		}
		if k := compareOwn([]*facts{a, b}, name); k.Verdict != Pass {
			t.Errorf("%+v", k)
		}
	}
	if k := compareOwn([]*facts{{}, {}}, "boot id"); k.Verdict != Note {
		t.Errorf("%+v", k)
	}
	c := []*facts{{printed: "x\nkey 1\n"}, {printed: "y\nkey 1\n"}}
	if k := comparePrinted(c); k.Verdict != Fail || !strings.Contains(k.Says, "key 1") {
		t.Errorf("%+v", k)
	}
	c[1].printed = "y\n\n"
	if k := comparePrinted(c); k.Verdict != Pass {
		t.Errorf("%+v", k)
	}
}

func TestServerRandom(t *testing.T) {
	hello := append([]byte{22, 3, 3, 0, 80, 2, 0, 0, 76, 3, 3}, make([]byte, 32)...)
	hello[11] = 0xab
	if got := serverRandom(hello); got != "ab"+strings.Repeat("00", 31) {
		t.Error(got)
	}
	retry, _ := hex.DecodeString(helloRetry)
	copy(hello[11:], retry)
	if got := serverRandom(hello); got != "" {
		t.Errorf("a retry has a random: %s", got)
	}
	for _, b := range [][]byte{nil, hello[:40], append([]byte{21}, hello[1:]...)} {
		if got := serverRandom(b); got != "" {
			t.Errorf("%x: %s", b, got)
		}
	}
}

func FuzzServerRandom(f *testing.F) {
	f.Add([]byte{22, 3, 3, 0, 80, 2})
	f.Fuzz(func(t *testing.T, b []byte) { serverRandom(b); values(string(b)) })
}
