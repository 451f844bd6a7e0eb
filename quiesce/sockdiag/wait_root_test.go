//go:build root

package sockdiag

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWaitNamesSlowReader: idle connections do not hold a drain up, one that does not read does, and is named.
func TestWaitNamesSlowReader(t *testing.T) {
	for way, o := range ways {
		t.Run(way, func(t *testing.T) {
			enterNetns(t)
			ins := inspect(t, o)
			for range 5 {
				tcpPair(t, "127.0.0.1") // keep-alive
			}
			_, client, server := tcpPair(t, "127.0.0.1")
			client.write("not read")
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			left, err := ins.Wait(ctx, WaitOptions{Looked: func(n int, _ []Socket) {
				if n == 3 {
					cancel()
				}
			}})
			if !errors.Is(err, context.Canceled) || len(left) != 1 || left[0].Local != server.name().String() ||
				left[0].PID != os.Getpid() || left[0].Since.IsZero() {
				t.Fatalf("%v, left:\n%s", err, list(left))
			}
			left, err = ins.Wait(context.Background(), WaitOptions{Looked: func(n int, _ []Socket) {
				if n == 2 {
					server.readAll(len("not read"))
				}
			}})
			if err != nil || len(left) != 0 {
				t.Errorf("%v, left:\n%s", err, list(left))
			}
		})
	}
}

// TestWaitAlongAChain: bytes handed from TCP to a unix pair and on to UDP are waited for until they have arrived.
func TestWaitAlongAChain(t *testing.T) {
	enterNetns(t)
	ins := inspect(t, Options{})
	_, client, server := tcpPair(t, "127.0.0.1")
	a, b := unixPair(t, unix.SOCK_STREAM)
	u := newSock(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	at := u.bindTo("127.0.0.1")
	u.must(unix.Connect(u.fd, toSockaddr(at)))
	client.write("x")
	steps := []func(){
		func() { server.readAll(1); a.write("x") },
		func() { b.readAll(1); u.write("x") },
		func() { u.readAll(1) },
	}
	taken := 0
	left, err := ins.Wait(context.Background(), WaitOptions{Looked: func(n int, left []Socket) {
		if len(left) > 0 && len(steps) > 0 {
			steps[0]()
			steps = steps[1:]
		}
		taken = n
	}})
	if err != nil || len(left) != 0 || len(steps) != 0 || taken < 5 {
		t.Errorf("%d looks, %d steps to come, %v, left:\n%s", taken, len(steps), err, list(left))
	}
}

// TestManyUsers: an Inspector is used by several goroutines; run it with -race.
func TestManyUsers(t *testing.T) {
	enterNetns(t)
	ins := inspect(t, Options{Withhold: []string{"unix"}})
	_, client, _ := tcpPair(t, "127.0.0.1")
	client.write("x")
	untilOne(t, ins, "tcp", "ESTABLISHED", whyUnread)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 20 {
				found, err := ins.Busy(context.Background())
				_, err2 := ins.Inherited(context.Background())
				if err := errors.Join(err, err2); err != nil || !strings.Contains(list(found), whyUnread) {
					t.Errorf("%v\n%s", err, list(found))
				}
				ins.Sources()
			}
		})
	}
	all.Wait()
}

// TestNothingPerSocket: a look at many idle sockets allocates no more than one at few.
func TestNothingPerSocket(t *testing.T) {
	for _, o := range []Options{{}, {Withhold: []string{"tcp", "udp"}}} {
		enterNetns(t)
		ins := inspect(t, o)
		look := func() float64 {
			return testing.AllocsPerRun(5, func() {
				if found := busy(t, ins); len(found) != 0 {
					t.Fatalf("not idle:\n%s", list(found))
				}
			})
		}
		tcpPair(t, "127.0.0.1")
		tcpPair(t, "::1")
		untilIdle(t, ins)
		few := look()
		for range 200 {
			tcpPair(t, "127.0.0.1")
			tcpPair(t, "::1")
		}
		untilIdle(t, ins)
		if many := look(); many > few+2 {
			t.Errorf("withheld %v: %.0f allocations for 6 sockets, %.0f for 1200", o.Withhold, few, many)
		}
	}
}

// TestAllowedIsNotWaitedFor: what the gate lets through at any time does not hold a drain up, and the rest does.
func TestAllowedIsNotWaitedFor(t *testing.T) {
	newPeer(t)
	all := inspect(t, Options{})
	_, client, server := tcpPair(t, "10.9.0.1")
	client.write("management")
	untilOne(t, all, "tcp", "ESTABLISHED", whyUnread)
	for name, a := range map[string]Allowed{
		"port":      {Protocol: "tcp", Port: server.name().Port()},
		"interface": {Interface: "near"},
	} {
		ins := inspect(t, Options{Allowed: []Allowed{a}})
		if left, err := ins.Wait(context.Background(), WaitOptions{}); err != nil || len(left) != 0 {
			t.Errorf("%s: %v, left:\n%s", name, err, list(left))
		}
		_, other, end := tcpPair(t, "127.0.0.1")
		other.write("x")
		untilOne(t, ins, "tcp", "ESTABLISHED", whyUnread)
		end.readAll(1)
	}
	server.readAll(len("management"))
}
