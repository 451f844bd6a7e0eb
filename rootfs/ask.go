package rootfs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"
)

// wire carries the payloads of one protocol on one link.
type wire interface {
	send([]byte) error
	// receive returns os.ErrDeadlineExceeded at until, and any other error when there is nothing to be had any more.
	receive(until time.Time) ([]byte, error)
}

// mostAnswers is how many packets are looked at in answer to one question: a link full of noise must not keep PID 1 busy.
const mostAnswers = 500

// ask says what query makes, again and again after pauses that double from one second to a minute, until take accepts an
// answer, the time is over (os.ErrDeadlineExceeded) or ctx is. The first pauses are shorter than those of RFC 2131, section 4.1 (4 to
// 64 s): in virtual networks the first packet is lost more often than the server is overrun.
func ask(ctx context.Context, w wire, until time.Time, query func() []byte, take func([]byte) bool) error {
	for try := 0; ; try++ {
		// A link whose carrier is not there yet refuses: like a packet that was lost.
		_ = w.send(query())
		pause := time.Now().Add(backoff(try))
		if !until.IsZero() && pause.After(until) {
			pause = until
		}
		for n := 0; ; n++ {
			b, err := w.receive(pause)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				return err
			}
			if err != nil {
				break
			}
			if take(b) {
				return nil
			}
			if n >= mostAnswers {
				sleep(ctx, time.Until(pause))
				break
			}
		}
		if !until.IsZero() && !time.Now().Before(until) {
			return os.ErrDeadlineExceeded
		}
	}
}

// backoff is the pause after a try, up to a quarter more or less by chance, so that clones do not ask in chorus.
func backoff(try int) time.Duration {
	d := time.Second << min(try, 6)
	return d*3/4 + time.Duration(random32()%uint32(d/2>>10))<<10
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// dhcpClient asks for and prolongs IPv4 leases on one link.
type dhcpClient struct {
	wire     wire
	mac      hardware
	hostname string // told to the server, which may put it into DNS; or ""
}

var errNak = errors.New("the DHCP server refused")

// acquire goes on until there is a lease or ctx is over (RFC 2131, section 3.1).
func (c dhcpClient) acquire(ctx context.Context) (Lease, error) {
	for try := 0; ; try++ {
		q := dhcpQuery{kind: dhcpDiscover, xid: random32(), mac: c.mac, hostname: c.hostname}
		_, offer, err := c.exchange(ctx, time.Time{}, &q, dhcpOffer)
		if err != nil {
			return Lease{}, err
		}
		q.kind, q.requested, q.server = dhcpRequest, offer.Addresses[0].Addr(), offer.Server
		kind, l, err := c.exchange(ctx, time.Now().Add(10*time.Second), &q, dhcpAck)
		if err == nil && kind == dhcpAck {
			return l, nil
		}
		// Refused, or nobody answered any more: from the beginning, and not at once, as the next offer may be the same.
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return Lease{}, err
		}
		sleep(ctx, backoff(try))
	}
}

// prolong asks until then for more time for l (RFC 2131, section 4.4.5). errNak: l may not be used any more.
func (c dhcpClient) prolong(ctx context.Context, l Lease, until time.Time) (Lease, error) {
	q := dhcpQuery{kind: dhcpRequest, xid: random32(), mac: c.mac, hostname: c.hostname, own: l.Addresses[0].Addr()}
	kind, next, err := c.exchange(ctx, until, &q, dhcpAck)
	if err == nil && (kind == dhcpNak || next.Addresses[0].Addr() != q.own) {
		err = errNak
	}
	return next, err
}

// exchange waits for an answer of the kind wanted or, to a request, for the refusal by the server that was asked.
func (c dhcpClient) exchange(ctx context.Context, until time.Time, q *dhcpQuery, want byte) (kind byte, l Lease, err error) {
	began := time.Now()
	err = ask(ctx, c.wire, until, func() []byte {
		q.secs = uint16(min(time.Since(began)/time.Second, 65535))
		return q.bytes()
	}, func(b []byte) bool {
		var err error
		kind, l, err = parseDHCP(b, q.xid, c.mac)
		ours := !q.server.IsValid() || q.server == l.Server
		return err == nil && ours && (kind == want || kind == dhcpNak && want == dhcpAck)
	})
	if err != nil {
		return 0, Lease{}, fmt.Errorf("DHCP: %w", err)
	}
	return kind, l, nil
}

func (l Lease) address() netip.Prefix {
	if len(l.Addresses) == 0 {
		return netip.Prefix{}
	}
	return l.Addresses[0]
}

// dhcp6Client does the same for IPv6. What it has got stands in lease and server.
type dhcp6Client struct {
	wire    wire
	mac     hardware
	address bool // ask for an address; else for the rest only
	lease   Lease
	server  []byte
}

// stateless is how long what comes without an address is held to be true (RFC 8415, section 21.23).
const stateless = 24 * time.Hour

// acquire goes on until there is a lease or ctx is over: in two messages where the server can (rapid commit), else in four.
func (c *dhcp6Client) acquire(ctx context.Context) error {
	if !c.address {
		a, err := c.exchange(ctx, time.Time{}, dhcp6Query{kind: v6Information}, func(a dhcp6Answer) bool { return a.kind == v6Reply })
		c.lease, c.server = a.lease, a.server
		c.lease.times(stateless, 0, 0)
		return err
	}
	for try := 0; ; try++ {
		a, err := c.exchange(ctx, time.Time{}, dhcp6Query{kind: v6Solicit}, func(a dhcp6Answer) bool {
			return a.lends() && (a.kind == v6Advertise || a.rapid)
		})
		if err == nil && a.kind == v6Advertise {
			a, err = c.exchange(ctx, time.Now().Add(10*time.Second), dhcp6Query{kind: v6Request, server: a.server, own: a.lease.Addresses},
				func(a dhcp6Answer) bool { return a.kind == v6Reply })
		}
		if err == nil && a.lends() {
			c.lease, c.server = a.lease, a.server
			return nil
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		sleep(ctx, backoff(try))
	}
}

func (a dhcp6Answer) lends() bool { return a.status == 0 && len(a.lease.Addresses) > 0 }

// prolong asks the server until T2 and everybody then. errNak: l may not be used any more.
func (c *dhcp6Client) prolong(ctx context.Context, l Lease, server []byte, since time.Time) error {
	q := dhcp6Query{kind: v6Renew, server: server, own: l.Addresses}
	reply := func(a dhcp6Answer) bool { return a.kind == v6Reply }
	soon := time.Now().Add(shortest / 4)
	a, err := c.exchange(ctx, latest(since.Add(l.T2), soon), q, reply)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		q.kind, q.server = v6Rebind, nil
		a, err = c.exchange(ctx, latest(since.Add(l.Valid), time.Now().Add(shortest/4)), q, reply)
	}
	if err == nil && (!a.lends() || a.lease.Addresses[0] != l.Addresses[0]) {
		err = errNak
	}
	c.lease, c.server = a.lease, a.server
	return err
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func (c *dhcp6Client) exchange(ctx context.Context, until time.Time, q dhcp6Query, take func(dhcp6Answer) bool) (a dhcp6Answer, err error) {
	q.xid, q.mac, q.address = random32(), c.mac, c.address
	began := time.Now()
	err = ask(ctx, c.wire, until, func() []byte {
		q.elapsed = time.Since(began)
		return q.bytes()
	}, func(b []byte) bool {
		var ok bool
		a, ok = parseDHCP6(b, q.xid, c.mac)
		return ok && (q.server == nil || string(q.server) == string(a.server)) && take(a)
	})
	if err != nil {
		return dhcp6Answer{}, fmt.Errorf("DHCPv6: %w", err)
	}
	return a, nil
}
