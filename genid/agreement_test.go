package genid

import (
	"strconv"
	"testing"
	"time"
)

// clones is a machine's sources as numbers that a test moves, with a clock that it turns.
type clones struct {
	agreement
	values []uint64
	clock  time.Time
	count  int    // changes of the identity seen
	last   string // the identity seen last
}

func newClones(names ...string) *clones {
	c := &clones{values: make([]uint64, len(names)), clock: time.Unix(1000, 0)}
	for i, name := range names {
		c.members = append(c.members, member{name: name, format: counterFormat(name),
			read: func() reading { return reading{c.values[i]} }})
	}
	c.start()
	c.last = c.text
	return c
}

// look lets time pass with a look every millisecond, as the flow does.
func (c *clones) pass(ms int) {
	for range ms + 1 {
		if id := c.agreement.look(func() time.Time { return c.clock }); id != c.last {
			c.count++
			c.last = id
		}
		c.clock = c.clock.Add(time.Millisecond)
	}
}

func TestAgreement(t *testing.T) {
	type step struct{ source, wait int } // that source moves, then so many ms pass
	tests := map[string]struct {
		steps []step
		want  int
		text  string
	}{
		"the first one alone":                    {[]step{{0, 500}}, 1, "a:1"},
		"both in one look":                       {[]step{{0, -1}, {1, 500}}, 1, "a:1"},
		"all three in one look":                  {[]step{{0, -1}, {1, -1}, {2, 500}}, 1, "a:1"},
		"the second 60 ms late":                  {[]step{{0, 60}, {1, 500}}, 1, "a:1"},
		"the second 60 ms early":                 {[]step{{1, 60}, {0, 500}}, 1, "a:1"},
		"two clones within a second":             {[]step{{0, -1}, {1, 300}, {0, -1}, {1, 500}}, 2, "a:2"},
		"two clones, the second source late":     {[]step{{0, 20}, {0, 20}, {1, 20}, {1, 500}}, 2, "a:2"},
		"two clones, the second source once":     {[]step{{0, 20}, {0, 20}, {1, 500}}, 2, "a:2"},
		"the second source alone":                {[]step{{1, 500}}, 1, "a:0/b:1"},
		"the second source alone, twice":         {[]step{{1, 500}, {1, 500}}, 2, "a:0/b:2"},
		"two others and not the first":           {[]step{{1, -1}, {2, 500}}, 1, "a:0/b:1"},
		"the second source once more than first": {[]step{{0, -1}, {1, 200}, {1, 500}}, 2, "a:1/b:2"},
		"the second source far too late":         {[]step{{0, 1500}, {1, 500}}, 2, "a:1/b:1"},
		"old debts are forgotten":                {[]step{{0, 1500}, {0, -1}, {1, 50}, {1, 500}}, 3, "a:2/b:2"},
		"a long time between clones":             {[]step{{0, 5}, {1, 5000}, {0, 5}, {1, 5000}}, 2, "a:2"},
		"the first one far too late":             {[]step{{1, 300}, {0, 500}}, 2, "a:1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := newClones("a", "b", "c")
			for _, s := range tt.steps {
				c.values[s.source]++
				c.pass(s.wait)
			}
			if c.count != tt.want || c.last != tt.text {
				t.Errorf("%d generations, identity %s; want %d, %s", c.count, c.last, tt.want, tt.text)
			}
		})
	}
}

// Whatever the sources do, no move of the first one is missed, and a move of another is told of sooner or
// later unless the first has moved as often.
func FuzzAgreement(f *testing.F) {
	f.Add([]byte{0, 1, 60, 2, 0xff, 1})
	f.Fuzz(func(t *testing.T, moves []byte) {
		c := newClones("a", "b")
		for _, b := range moves {
			before, source := c.count, int(b&1)
			c.values[source]++
			c.pass(int(b >> 1))
			if source == 0 && c.count == before {
				t.Fatalf("move %d of the first source is not seen", c.values[0])
			}
		}
		c.pass(2000)
		if c.values[1] > c.values[0] && uint64(c.count) < c.values[1] && moves[len(moves)-1]&1 == 1 && c.members[1].known[0] != c.values[1] {
			t.Fatalf("the second source is at %d and %d is taken into account", c.values[1], c.members[1].known[0])
		}
		if total := c.values[0] + c.values[1]; uint64(c.count) > total {
			t.Fatalf("%d generations of %d moves", c.count, total)
		}
	})
}

func TestNoSourceIsNoIdentity(t *testing.T) {
	c := newClones()
	if c.pass(1); c.last != "" {
		t.Errorf("identity %q", c.last)
	}
}

func TestLookAsksForTimeOnlyWhenSomethingMoves(t *testing.T) {
	c := newClones("a", "b")
	c.look(func() time.Time { t.Error("asked"); return c.clock })
}

func BenchmarkLook(b *testing.B) {
	for _, n := range []int{1, 3} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			c := newClones([]string{"a", "b", "c"}[:n]...)
			b.ReportAllocs()
			for b.Loop() {
				c.look(time.Now)
			}
		})
	}
}
