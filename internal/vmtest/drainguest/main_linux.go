// Command drainguest is what the drain's VM test talks to: a server that counts what it is sent by TCP, UDP and a
// unix socket, checks that every byte is the next one and no datagram comes twice, and answers everything. When the
// machine's generation changes it prints what it had counted by then: in a clone, what had been delivered before
// the snapshot. Called with the argument "unix" it is the local client instead.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"rouse/genid/sysgenid"
)

const path = "/run/drain.sock"

func main() {
	log.SetFlags(0)
	log.SetOutput(os.Stdout)
	run := serve
	if len(os.Args) > 1 && os.Args[1] == "unix" {
		run = chatter
	}
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

// server holds what was delivered.
type server struct {
	generations *sysgenid.Client

	mu      sync.Mutex
	current uint32 // generation that all below was counted in
	streams map[string]*stream
	clients map[uint32]*client
}

// stream is one connection: bytes that were read, and bytes that were written in answer.
type stream struct{ received, sent uint64 }

// client is a sender of datagrams: which of them came.
type client struct {
	seen    big.Int
	answers int
	twice   int
}

func serve() error {
	c, err := sysgenid.Open("/dev/sysgenid")
	if err != nil {
		return err
	}
	s := &server{generations: c, current: c.Generation(), streams: map[string]*stream{}, clients: map[uint32]*client{}}
	t, err := net.Listen("tcp", ":7001")
	if err != nil {
		return err
	}
	u, err := net.ListenUDP("udp", &net.UDPAddr{Port: 7002})
	if err != nil {
		return err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	go s.accept(t)
	go s.accept(l)
	go s.datagrams(u)
	return s.watch()
}

func (s *server) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go s.converse(c)
	}
}

// converse reads a name of four bytes and then numbered bytes, and answers each with a numbered byte of its own.
func (s *server) converse(c net.Conn) {
	defer c.Close()
	var name [4]byte
	if _, err := io.ReadFull(c, name[:]); err != nil {
		return
	}
	st := &stream{}
	s.mu.Lock()
	s.streams[string(name[:])] = st
	s.mu.Unlock()
	buf := make([]byte, 8192)
	for {
		n, err := c.Read(buf)
		for i, b := range buf[:n] {
			if want := byte(st.received + uint64(i)); b != want {
				log.Fatalf("broken: %s byte %d is %d", name, st.received+uint64(i), b)
			}
		}
		s.count()
		st.received += uint64(n)
		s.mu.Unlock()
		for i := range n {
			buf[i] = ^byte(st.sent + uint64(i))
		}
		m, writeErr := c.Write(buf[:n])
		s.count()
		st.sent += uint64(m)
		s.mu.Unlock()
		if err != nil || writeErr != nil {
			return
		}
	}
}

// datagrams are a client's number and their own, and come back as they are.
func (s *server) datagrams(u *net.UDPConn) {
	var b [64]byte
	for {
		n, from, err := u.ReadFromUDPAddrPort(b[:])
		if err != nil {
			log.Fatal(err)
		}
		if n != 8 {
			continue
		}
		s.count()
		id, number := binary.BigEndian.Uint32(b[:]), int(binary.BigEndian.Uint32(b[4:]))
		c := s.clients[id]
		if c == nil {
			c = &client{}
			s.clients[id] = c
		}
		if c.seen.Bit(number) != 0 {
			c.twice++
		}
		c.seen.SetBit(&c.seen, number, 1)
		if _, err := u.WriteToUDPAddrPort(b[:n], from); err == nil {
			c.answers++
		}
		s.mu.Unlock()
	}
}

// count locks the records for a change. The first one in a new generation prints first what was delivered before: the counter
// is raised before anything of a clone runs, so that nothing of the clone's own is among it.
func (s *server) count() {
	s.mu.Lock()
	generation := s.generations.Generation()
	if generation == s.current {
		return
	}
	s.current = generation
	for name, st := range s.streams {
		log.Printf("record %d stream %s %d %d", generation, name, st.received, st.sent)
	}
	for id, c := range s.clients {
		log.Printf("record %d datagrams %d %d %d %x", generation, id, c.answers, c.twice, &c.seen)
	}
	log.Printf("record %d drops %d", generation, drops())
	log.Printf("record %d end", generation)
}

// watch acknowledges each new generation once what was delivered before is printed.
func (s *server) watch() error {
	for {
		generation, err := s.generations.Wait(context.Background())
		if err != nil {
			return err
		}
		s.count()
		s.mu.Unlock()
		if err := s.generations.Ack(generation); err != nil {
			return err
		}
	}
}

// drops are the datagrams that this kernel has counted as lost: what it does not tell would be silence.
func drops() (n int) {
	for file, names := range map[string][]string{
		"/proc/net/snmp":  {"Udp: InErrors", "Udp: NoPorts", "Ip: InDiscards", "Ip: InHdrErrors"},
		"/proc/net/snmp6": {"Udp6InErrors", "Udp6NoPorts", "Ip6InDiscards", "Ip6InHdrErrors"},
		"/sys/class/net/eth1/statistics/rx_dropped": {""},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			log.Printf("broken: %v", err)
		}
		for _, name := range names {
			n += counter(string(text), name)
		}
	}
	return n
}

// counter finds a number: in a table of two columns, or in a row below the row of names, or alone.
func counter(text, name string) (n int) {
	kind, column, table := strings.Cut(name, ": ")
	var heads []string
	for _, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case name == "" || !table && words[0] == name:
			n, _ = strconv.Atoi(words[len(words)-1])
			return n
		case table && words[0] == kind+":" && heads == nil:
			heads = words
		case table && words[0] == kind+":":
			if at := slices.Index(heads, column); at > 0 {
				n, _ = strconv.Atoi(words[at])
			}
			return n
		}
	}
	return 0
}

// chatter sends numbered bytes to the server through a unix socket for ever, in a clone too: that connection stays
// inside the machine. It checks the answers.
func chatter() error {
	c, err := dialUnix()
	if err != nil {
		return err
	}
	if _, err := c.Write([]byte("unix")); err != nil {
		return err
	}
	answers := bufio.NewReader(c)
	var sent, received uint64
	for {
		chunk := make([]byte, 1+rand.IntN(3000))
		for i := range chunk {
			chunk[i] = byte(sent + uint64(i))
		}
		if _, err := c.Write(chunk); err != nil {
			return err
		}
		sent += uint64(len(chunk))
		for received < sent {
			b, err := answers.ReadByte()
			if err != nil {
				return err
			}
			if b != ^byte(received) {
				return fmt.Errorf("broken: answer %d is %d", received, b)
			}
			received++
		}
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
	}
}

func dialUnix() (net.Conn, error) {
	for range 1000 {
		c, err := net.Dial("unix", path)
		if err == nil {
			return c, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, errors.New("no server at " + path)
}
