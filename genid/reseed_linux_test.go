package genid

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReseed(t *testing.T) {
	p, err := OpenPool("/dev/urandom")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s, err := p.Reseed("id", []byte("seed"))
	if os.Geteuid() != 0 {
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("error %v, want EPERM for an unprivileged caller", err)
		}
		return
	}
	if err != nil || s.SeedBytes != 4 || s.CreditedBits != 8*s.CPUBytes {
		t.Errorf("sources %+v, error %v", s, err)
	}
}

// What is worth nothing is credited nothing, and warned of.
func TestMixture(t *testing.T) {
	for name, tt := range map[string]struct {
		cpu, seed, credit int
		guessable         bool
	}{
		"both":             {64, 32, 512, false},
		"processor only":   {64, 0, 512, false},
		"half a processor": {8, 0, 64, false},
		"host only":        {0, 32, 256, false},
		"a long seed":      {0, 4096, 512, false},
		"neither":          {0, 0, 0, true},
	} {
		m := mixtureOf(tt.cpu, tt.seed)
		if m.CPUBytes != tt.cpu || m.SeedBytes != tt.seed || m.CreditedBits != tt.credit || m.Guessable != tt.guessable {
			t.Errorf("%s: %+v", name, m)
		}
		text, err := json.Marshal(m)
		if err != nil || strings.Contains(string(text), `"warning":"nothing secret`) != tt.guessable {
			t.Errorf("%s: %s, %v", name, text, err)
		}
	}
}

// A pool that is no random device must not pass as reseeded.
func TestReseedFailsClosed(t *testing.T) {
	p, err := OpenPool("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Reseed("id", nil); err == nil {
		t.Error("no error")
	}
}
