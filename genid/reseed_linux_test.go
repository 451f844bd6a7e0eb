package genid

import (
	"errors"
	"os"
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
