package rootfs

import (
	"context"
	"errors"
	"os"
	"time"

	"rouse/internal/fmt"
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
		if pause.After(until) {
			pause = until
		}
		for n := 0; ; n++ {
			b, err := w.receive(pause)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil || take(b) {
				return err
			}
			if n >= mostAnswers {
				sleep(ctx, time.Until(pause))
				break
			}
		}
		if !time.Now().Before(until) {
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

// soon is how long an offer that was accepted is waited for, and the least that is left to a server to prolong a lease.
const soon = 15 * time.Second

var errRefused = errors.New("the DHCP server refused")

// dhcpClient asks for IPv4 leases on one link.
type dhcpClient struct {
	wire     wire
	mac      hardware
	hostname string // told to the server, which may put it into DNS; or ""
}

// acquire asks once for a lease, until then (RFC 2131, section 3.1).
func (c *dhcpClient) acquire(ctx context.Context, until time.Time) (*Lease, error) {
	q := &dhcpQuery{kind: dhcpDiscover, xid: random32(), mac: c.mac, hostname: c.hostname}
	l, err := c.exchange(ctx, until, q, dhcpOffer)
	if err != nil {
		return nil, err
	}
	q.kind, q.requested, q.server = dhcpRequest, l.Address.Addr(), l.Server
	return c.exchange(ctx, time.Now().Add(soon), q, dhcpAck)
}

// prolong asks until then for more time for l (RFC 2131, section 4.4.5). It asks everybody from the beginning, as others do from T2 on: a
// socket for its server alone is more code than the rare packet is worth. errRefused: l may not be used any more.
func (c *dhcpClient) prolong(ctx context.Context, l *Lease, until time.Time) (*Lease, error) {
	q := &dhcpQuery{kind: dhcpRequest, xid: random32(), mac: c.mac, hostname: c.hostname, own: l.Address.Addr()}
	next, err := c.exchange(ctx, until, q, dhcpAck)
	if err == nil && next.Address.Addr() != q.own {
		err = errRefused
	}
	return next, err
}

// exchange waits for an answer of the kind wanted or, to a request, for the refusal by the server that was asked.
func (c *dhcpClient) exchange(ctx context.Context, until time.Time, q *dhcpQuery, want byte) (l *Lease, err error) {
	began := time.Now()
	var kind byte
	err = ask(ctx, c.wire, until, func() []byte {
		q.secs = uint16(min(time.Since(began)/time.Second, 65535))
		return q.bytes()
	}, func(b []byte) bool {
		kind, l = parseDHCP(b, q.xid, c.mac)
		return l != nil && (q.server == l.Server || !q.server.IsValid()) && (kind == want || kind == dhcpNak && want == dhcpAck)
	})
	if err == nil && kind == dhcpNak {
		err = errRefused
	}
	if err != nil {
		return nil, fmt.Errorf("DHCP: %w", err)
	}
	return l, nil
}

// dhcp6Client does the same for IPv6.
type dhcp6Client struct {
	wire    wire
	mac     hardware
	address bool // ask for an address; else for the rest only
}

// acquire asks once for a lease, until then: in two messages where the server can (rapid commit), else in four. A lease is prolonged by
// it as well: the same client is lent the same address, and Renew and Rebind are more code than the rare packet is worth.
func (c *dhcp6Client) acquire(ctx context.Context, until time.Time, own *Lease) (*Lease, error) {
	q := &dhcp6Query{kind: v6Solicit, mac: c.mac, address: c.address, xid: random32()}
	if !c.address {
		q.kind = v6Information
	}
	if own != nil {
		q.own = own.Address
	}
	a, err := c.exchange(ctx, until, q)
	if err == nil && a.kind == v6Advertise {
		q.kind, q.server, q.own = v6Request, a.server, a.lease.Address
		a, err = c.exchange(ctx, time.Now().Add(soon), q)
	}
	if err != nil {
		return nil, fmt.Errorf("DHCPv6: %w", err)
	}
	return &a.lease, nil
}

// exchange waits for an answer that gives what was asked for.
func (c *dhcp6Client) exchange(ctx context.Context, until time.Time, q *dhcp6Query) (a *dhcp6Answer, err error) {
	began := time.Now()
	err = ask(ctx, c.wire, until, func() []byte {
		q.elapsed = time.Since(began)
		return q.bytes()
	}, func(b []byte) bool {
		a = parseDHCP6(b, q.xid, c.mac)
		return a != nil && (q.server == nil || string(q.server) == string(a.server)) && (!c.address || a.lends()) &&
			(a.kind == v6Reply && (q.kind != v6Solicit || a.rapid) || a.kind == v6Advertise && q.kind == v6Solicit)
	})
	return a, err
}
