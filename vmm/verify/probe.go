package verify

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"rouse/vmm"
)

// answers are what a port said.
type answers struct {
	guest uint16
	host  string
	tls   bool
	// hello is the random of the first ServerHello, which TLS wants to be new in every one.
	hello string
	// first and second are the answers to the same request over two connections.
	first, second string
	err           error
	// twin is what became of a session of the first clone that was offered to its twin; self to itself.
	self, twin string
}

// probeTime bounds one connection.
const probeTime = 15 * time.Second

// maxAnswer is how much of an answer is looked at, in bytes.
const maxAnswer = 1 << 20

// probe asks a port twice, over TLS if it speaks that.
func (c Config) probe(ctx context.Context, f vmm.Forward) answers {
	a := answers{guest: f.GuestPort, host: net.JoinHostPort(f.HostIP, fmt.Sprint(f.HostPort))}
	conn, hello, _, err := dialTLS(ctx, a.host, nil)
	if a.tls = err == nil; a.tls {
		conn.Close()
		a.hello = hello
	}
	if a.first, a.err = c.get(ctx, a); a.err == nil {
		a.second, a.err = c.get(ctx, a)
	}
	return a
}

// get gives the whole answer to one request, head and body, over a connection of its own.
func (c Config) get(ctx context.Context, a answers) (string, error) {
	var conn net.Conn
	var err error
	if a.tls {
		conn, _, _, err = dialTLS(ctx, a.host, nil)
	} else {
		conn, err = dial(ctx, a.host)
	}
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return request(conn, c.Path)
}

func request(conn net.Conn, path string) (string, error) {
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: clone.invalid\r\nConnection: close\r\nUser-Agent: rouse-verify\r\n\r\n", path); err != nil {
		return "", err
	}
	var raw bytes.Buffer
	resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(io.LimitReader(conn, maxAnswer), &raw)), nil)
	if err != nil {
		return "", fmt.Errorf("no HTTP answer: %w", err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return "", err
	}
	return raw.String(), nil
}

func dial(ctx context.Context, host string) (net.Conn, error) {
	d := net.Dialer{Timeout: probeTime}
	conn, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(probeTime))
}

// dialTLS makes a connection and tells the random of its ServerHello and whether a session was resumed. Who the
// server is does not matter here: it is behind a port of ours.
func dialTLS(ctx context.Context, host string, cache tls.ClientSessionCache) (conn *tls.Conn, hello string, resumed bool, err error) {
	raw, err := dial(ctx, host)
	if err != nil {
		return nil, "", false, err
	}
	tap := &recorder{Conn: raw}
	conn = tls.Client(tap, &tls.Config{InsecureSkipVerify: true, ServerName: "clone.invalid", ClientSessionCache: cache})
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, "", false, err
	}
	return conn, serverRandom(tap.seen), conn.ConnectionState().DidResume, nil
}

// recorder keeps the first bytes that a server sends.
type recorder struct {
	net.Conn
	seen []byte
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	if len(r.seen) < 64 {
		r.seen = append(r.seen, p[:n]...)
	}
	return n, err
}

// helloRetry is the random of a ServerHello that asks for another try (RFC 8446, 4.1.3): the same for all.
const helloRetry = "cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c"

// serverRandom reads the random of a ServerHello (RFC 8446, 4.1.3): a record of type 22, 5 bytes of header; a
// handshake message of type 2, 4 bytes of header; two bytes of version; 32 of random.
func serverRandom(b []byte) string {
	const at, n = 5 + 4 + 2, 32
	if len(b) < at+n || b[0] != 22 || b[5] != 2 {
		return ""
	}
	if s := hex.EncodeToString(b[at : at+n]); s != helloRetry {
		return s
	}
	return ""
}

// resumeAcross takes a session from the first clone and offers it to itself and to its twin. A twin that takes
// it holds the same session-ticket keys: whoever has one clone's keys reads the other's traffic.
func (c Config) resumeAcross(ctx context.Context, a, b *facts) {
	for i := range a.ports {
		if !a.ports[i].tls || i >= len(b.ports) {
			continue
		}
		a.ports[i].self = c.offer(ctx, a.ports[i].host, a.ports[i].host)
		a.ports[i].twin = c.offer(ctx, a.ports[i].host, b.ports[i].host)
	}
}

// offer says what the second host makes of a session of the first: "taken", "refused", or why it is not known.
func (c Config) offer(ctx context.Context, from, to string) string {
	cache := tls.NewLRUClientSessionCache(8)
	conn, _, _, err := dialTLS(ctx, from, cache)
	if err != nil {
		return err.Error()
	}
	// In TLS 1.3 the ticket comes after the handshake: with the first answer it is read.
	_, err = request(conn, c.Path)
	conn.Close()
	if _, ok := cache.Get("clone.invalid"); !ok {
		return fmt.Sprintf("no ticket was given (%v)", err)
	}
	conn, _, resumed, err := dialTLS(ctx, to, cache)
	if err != nil {
		return err.Error()
	}
	conn.Close()
	if resumed {
		return taken
	}
	return refused
}

const taken, refused = "taken", "refused"

// value is a run of characters that a random value is written with; shorter ones repeat by chance.
var value = regexp.MustCompile(`[A-Za-z0-9+/_=-]{12,}`)

var digits = regexp.MustCompile(`^[0-9.-]{1,19}$`) // a time or a counter

func values(text string) []string {
	var list []string
	for _, v := range value.FindAllString(text, -1) {
		if !digits.MatchString(v) {
			list = append(list, v)
		}
	}
	return list
}

// repeated are values that change from one answer of a clone to the next, as random ones do, and that a twin
// gives too; constant are those that never change and are the same in both, and have a digit: words and
// names of header lines are no secrets.
func repeated(a, b answers) (repeats, constant []string) {
	later, twin := values(a.second), append(values(b.first), values(b.second)...)
	for _, v := range values(a.first) {
		switch {
		case !slices.Contains(twin, v):
		case !slices.Contains(later, v):
			repeats = append(repeats, v)
		case strings.ContainsAny(v, "0123456789"):
			constant = append(constant, v)
		}
	}
	return repeats, constant
}
