// Command webserver is a small HTTPS server that is worth cloning carefully: it draws its random values
// from a generator in its own memory, seeded once, as OpenSSL, Java or Python's random do; it keeps
// TLS session-ticket keys; and it counts requests. In a cloned snapshot all three are a twin's.
//
// Built as it is, it tracks /dev/sysgenid: on a new generation it reseeds, makes new ticket keys and
// acknowledges. Built with -tags nowatcher it does not, and stands for the many servers that do not
// know that they were cloned.
//
// Paths: / answers with a JSON object (see answer); /stream?bytes=N&chunk=C&pause=D sends N bytes
// slowly, for transfers that are under way when a snapshot begins; every byte of it is told by position.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

func main() {
	listen := flag.String("listen", ":443", "`address` to listen on")
	device := flag.String("sysgenid", "/dev/sysgenid", "`path` of the generation device")
	mute := flag.Bool("mute", false, "track the generation and never acknowledge, to see the gate stay shut")
	flag.Parse()
	if err := run(*listen, *device, *mute); err != nil {
		log.Fatal(err)
	}
}

func run(listen, device string, mute bool) error {
	s, err := newServer()
	if err != nil {
		return err
	}
	if err := watch(s, device, mute); err != nil {
		return err
	}
	l, err := tls.Listen("tcp", listen, s.config)
	if err != nil {
		return err
	}
	if err := notifyReady(); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", s.answer)
	mux.HandleFunc("/stream", stream)
	return http.Serve(l, mux)
}

// server is the state that a clone shares with its twin.
type server struct {
	config *tls.Config

	mu         sync.Mutex
	drbg       *mathrand.ChaCha8
	ticketKey  [32]byte
	requests   uint64
	generation uint32
}

func newServer() (*server, error) {
	cert, err := selfSigned()
	if err != nil {
		return nil, err
	}
	s := &server{config: &tls.Config{Certificates: []tls.Certificate{cert}}}
	return s, s.reseed(0)
}

// reseed gives the server a generator and ticket keys of its own. It is called once at start, and again
// in every generation.
func (s *server) reseed(generation uint32) error {
	var seed [32]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drbg = mathrand.NewChaCha8(seed)
	s.generation = generation
	if _, err := s.drbg.Read(s.ticketKey[:]); err != nil {
		return err
	}
	s.config.SetSessionTicketKeys([][32]byte{s.ticketKey})
	return nil
}

// answer tells what a clone must not share: the next random value and the ticket key's fingerprint. The
// request counter shows that it is the same program going on.
func (s *server) answer(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	var value [16]byte
	_, err := s.drbg.Read(value[:])
	s.requests++
	print := sha256.Sum256(s.ticketKey[:])
	reply := map[string]any{
		"random":     hex.EncodeToString(value[:]),
		"ticket-key": hex.EncodeToString(print[:8]),
		"requests":   s.requests,
		"generation": s.generation,
	}
	s.mu.Unlock()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(reply) // a client that has gone is no concern of ours
}

// stream sends bytes whose value is their position modulo 251, a chunk at a time.
func stream(w http.ResponseWriter, r *http.Request) {
	total := intParam(r, "bytes", 1<<20)
	chunk := make([]byte, intParam(r, "chunk", 16<<10))
	pause, err := time.ParseDuration(r.URL.Query().Get("pause"))
	if err != nil {
		pause = 0
	}
	w.Header().Set("Content-Length", strconv.Itoa(total))
	for sent := 0; sent < total; {
		n := min(len(chunk), total-sent)
		for i := range n {
			chunk[i] = byte((sent + i) % 251)
		}
		if _, err := w.Write(chunk[:n]); err != nil {
			return
		}
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		sent += n
		time.Sleep(pause)
	}
}

func intParam(r *http.Request, name string, otherwise int) int {
	n, err := strconv.Atoi(r.URL.Query().Get(name))
	if err != nil || n <= 0 || n > 1<<30 {
		return otherwise
	}
	return n
}

// selfSigned makes the identity of the service. It is meant to be the same in every clone.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "webserver"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Now().AddDate(10, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// notifyReady is sd_notify(3) with READY=1, if somebody wants to hear it.
func notifyReady() error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	c, err := net.Dial("unixgram", path)
	if err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	_, err = c.Write([]byte("READY=1"))
	return errors.Join(err, c.Close())
}
