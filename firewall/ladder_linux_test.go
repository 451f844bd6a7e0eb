package firewall

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fake is a mechanism in memory.
type fake struct {
	covers Coverage
	is     State
	fails  map[State]error
	closed bool
	calls  *[]string
	name   string
}

func (f *fake) set(s State) error {
	if f.calls != nil {
		*f.calls = append(*f.calls, f.name+" "+s.String())
	}
	if err := f.fails[s]; err != nil {
		return err
	}
	f.is = s
	return nil
}
func (f *fake) state() (State, error) { return f.is, nil }
func (f *fake) coverage() Coverage    { return f.covers }
func (f *fake) Close() error          { f.closed = true; return nil }

func everything() Coverage {
	return Coverage{IPv4: true, IPv6: true, ARP: true, ND: true, Multicast: true, Forwarded: true, Bridged: true, PacketSockets: true}
}

func TestLadder(t *testing.T) {
	ip := Coverage{IPv4: true, IPv6: true, ND: true, Multicast: true, Forwarded: true, ARP: true, Bridged: true}
	sockets := Coverage{IPv4: true, IPv6: true, Multicast: true}
	routes := Coverage{IPv4: true, IPv6: true, Forwarded: true}
	for _, c := range []struct {
		name, ask, works, want string
	}{
		{"all work", "", "nftables cgroup tc fib", "nftables+tc"},
		{"no tc", "", "nftables cgroup fib", "nftables"},
		{"no nftables", "", "cgroup tc fib", "cgroup+tc"},
		{"no nftables, no tc", "", "cgroup fib", "cgroup+fib"},
		{"only tc", "", "tc fib", "tc"},
		{"only routes", "", "fib", "fib"},
		{"nothing", "", "", ""},
		{"asked for one", "cgroup", "nftables cgroup tc", "cgroup"},
		{"asked for two", "tc+fib", "nftables cgroup tc fib", "tc+fib"},
		{"asked for one that fails", "tc", "nftables", ""},
		{"asked for nonsense", "iptables", "nftables", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			covers := map[string]Coverage{"nftables": ip, "cgroup": sockets, "tc": everything(), "fib": routes}
			var opened []*fake
			var ladder []rung
			for _, name := range []string{"nftables", "cgroup", "tc", "fib"} {
				ladder = append(ladder, rung{name, func(Options) (mechanism, error) {
					if !strings.Contains(c.works, name) {
						return nil, &UnsupportedError{name, "CONFIG_X", unix.ENOENT}
					}
					f := &fake{covers: covers[name]}
					opened = append(opened, f)
					return f, nil
				}})
			}
			_, got, err := openMechanism(ladder, Options{Mechanism: c.ask}, t.Logf)
			if got != c.want || (err == nil) != (c.want != "") {
				t.Fatalf("mechanism %q, %v; want %q", got, err, c.want)
			}
			left := 0
			for _, f := range opened {
				if !f.closed {
					left++
				}
			}
			if parts := len(strings.FieldsFunc(c.want, func(r rune) bool { return r == '+' })); left != parts {
				t.Errorf("%d mechanisms are left open, want %d", left, parts)
			}
			if c.ask == "" && c.want == "" && !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%v is not ErrUnsupported", err)
			}
		})
	}
}

// Shutting begins with the first part and goes on after an error; opening ends
// with the first part and stops at one.
func TestCombinedOrder(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		set   State
		fails string
		want  string
	}{
		{Shut, "", "first shut, second shut"},
		{Shut, "first", "first shut, second shut"},
		{Open, "", "second open, first open"},
		{Open, "second", "second open"},
		{Hold, "", "second open, first hold"},
	} {
		var calls []string
		parts := combined{&fake{name: "first", calls: &calls}, &fake{name: "second", calls: &calls}}
		for _, p := range parts {
			if f := p.(*fake); f.name == c.fails {
				f.fails = map[State]error{c.set: broken}
			}
		}
		err := parts.set(c.set)
		if errors.Is(err, broken) != (c.fails != "") {
			t.Errorf("set %v: %v", c.set, err)
		}
		if got := strings.Join(calls, ", "); got != c.want {
			t.Errorf("set %v: %s, want %s", c.set, got, c.want)
		}
		if s, err := parts.state(); c.fails == "" && (s != c.set || err != nil) {
			t.Errorf("state %v, %v; want %v", s, err, c.set)
		}
	}
}

func TestCombinedTellsDisagreement(t *testing.T) {
	parts := combined{&fake{is: Shut}, &fake{is: Open}}
	if s, err := parts.state(); s != Open || !errors.Is(err, ErrTampered) {
		t.Errorf("state %v, %v", s, err)
	}
}

// FuzzAnswers gives the readers of kernel answers any bytes.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0, 8, 0, 6, 0, 1, 0, 0, 0})
	f.Add(make([]byte, 40))
	es := compileRule(rule{matches: []match{tcpSyn{}, ctNew{}}})
	var e encoder
	for _, x := range es {
		e.nest(1, func() { e.expression(x) })
	}
	f.Add(e.b)
	f.Fuzz(func(t *testing.T, b []byte) {
		linkOf(message{typ: unix.RTM_NEWLINK, data: b})
		ruleOf(message{typ: unix.RTM_NEWRULE, data: b})
		_ = sameChain("inet", chain{hook: "output"}, b)
		sameExpressions(b, es)
		errorOf(b)
	})
}

// A rule that is listed in other bytes than ours is still ours; one bit less
// is not.
func TestSameExpressions(t *testing.T) {
	es := compileRule(rule{matches: []match{tcpSyn{}}})
	var e encoder
	for _, x := range es {
		e.nest(1, func() { e.expression(x) })
	}
	if !sameExpressions(e.b, es) {
		t.Error("not the same as itself")
	}
	if sameExpressions(e.b, es[:len(es)-1]) || sameExpressions(nil, es) {
		t.Error("the same with an expression less")
	}
	for i := range e.b {
		b := append([]byte{}, e.b...)
		b[i] ^= 1
		if sameExpressions(b, es) && i%4 != 3 && !padding(e.b, i) {
			t.Logf("byte %d of %d makes no difference", i, len(b))
		}
	}
}

// padding says that a byte is zero, as those between attributes are.
func padding(b []byte, i int) bool { return b[i] == 0 }
