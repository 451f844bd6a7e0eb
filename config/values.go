package config

import (
	"strconv"
	"strings"
	"time"

	"rouse/internal/fmt"
)

// Duration is a time.Duration that TOML writes as "10s".
type Duration time.Duration

// SetText takes what time.ParseDuration does, without negative values.
func (d *Duration) SetText(text string) error {
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration such as \"10s\" or \"250ms\"", text)
	}
	*d = Duration(v)
	return nil
}

func (d Duration) String() string { return time.Duration(d).String() }

// Size is a number of bytes, written as a number or with K, M or G behind it (of 1024, as cgroup
// files have it).
type Size uint64

// SetText takes "1048576", "1M".
func (s *Size) SetText(text string) error {
	number, shift := text, 0
	if n := len(text) - 1; n > 0 {
		if i := strings.IndexByte("KMG", text[n]); i >= 0 {
			number, shift = text[:n], 10*(i+1)
		}
	}
	v, err := strconv.ParseUint(number, 10, 64)
	if err != nil || v<<shift>>shift != v {
		return fmt.Errorf("%q is not a size such as 1048576 or \"64M\"", text)
	}
	*s = Size(v << shift)
	return nil
}

// Cores is processor time in cores: 2, or 0.5.
type Cores float64

// SetText takes a decimal number.
func (c *Cores) SetText(text string) error {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v >= 0.01 && v <= 4096) {
		return fmt.Errorf("%q is not a number of cores from 0.01, such as 0.5 or 2", text)
	}
	*c = Cores(v)
	return nil
}

// Mode is the permission bits of a file, in octal digits.
type Mode uint32

// SetText takes "0660".
func (m *Mode) SetText(text string) error {
	v, err := strconv.ParseUint(text, 8, 12)
	if err != nil {
		return fmt.Errorf("%q is not a file's mode such as \"0660\"", text)
	}
	*m = Mode(v)
	return nil
}

// Rlimit is a limit for each process, written as "nofile=1024" or "nofile=1024:4096" (soft and hard);
// "unlimited" is a number too.
type Rlimit struct {
	Name       string
	Soft, Hard uint64
}

// SetText takes what the type's comment says. That there is such a limit is for the supervisor to know.
func (r *Rlimit) SetText(text string) error {
	name, values, ok := strings.Cut(text, "=")
	soft, hard, both := strings.Cut(values, ":")
	if !both {
		hard = soft
	}
	s, err1 := limit(soft)
	h, err2 := limit(hard)
	if !ok || name == "" || err1 != nil || err2 != nil || s > h {
		return fmt.Errorf("%q is not a limit such as \"nofile=1024:4096\"", text)
	}
	*r = Rlimit{name, s, h}
	return nil
}

func (r Rlimit) String() string {
	number := func(v uint64) string {
		if v == 1<<64-1 {
			return "unlimited"
		}
		return strconv.FormatUint(v, 10)
	}
	return r.Name + "=" + number(r.Soft) + ":" + number(r.Hard)
}

func limit(text string) (uint64, error) {
	if text == "unlimited" {
		return 1<<64 - 1, nil
	}
	return strconv.ParseUint(text, 10, 64)
}
