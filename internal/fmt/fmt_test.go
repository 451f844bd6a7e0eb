package fmt

import (
	"bytes"
	"errors"
	oracle "fmt"
	"io/fs"
	"testing"
	"time"
)

type (
	word   string
	small  uint8
	titled int
	broken struct{ text string }
)

func (t titled) String() string { return "title" }
func (b *broken) Error() string { return b.text }

func operands() []any {
	return []any{"text", "", "ä\n\"", word("named"), 7, -7, int8(-3), uint8(255), uint16(0xbeef), uint32(1), uint64(1 << 63), int64(-1 << 40),
		small(9), titled(4), true, 1.5, 0.0, -2.25, float32(0.1), []byte("bytes\xff"), [4]byte{1, 2, 3, 4}, []string{"a", "b c"}, []word{"x"}, []int{1, -2},
		[]small{1, 2}, errors.New("wrong"), fs.ErrNotExist, nil, time.Second + 5*time.Millisecond, (*broken)(nil), 'c', uintptr(16)}
}

// Every verb and flag, for every operand that it is meant for, prints as the standard library does.
func TestOracle(t *testing.T) {
	formats := map[byte][]string{
		'v': {"%v", "%12v", "%-12v|"}, 's': {"%s", "%9s", "%-9s|", "%.2s"}, 'q': {"%q", "%.3q", "%12q"},
		'd': {"%d", "%5d", "%-5d|", "%05d", "%+d", "% d"}, 'x': {"%x", "%#x", "%02x", "%#02x", "%8x", "% x", "%08x", "%#08x"},
		'X': {"%X", "%04X", "%02X"}, 'o': {"%o"}, 'T': {"%T", "%30T"}, 'f': {"%f", "%9.3f", "%.1f", "%09.2f"}, 'c': {"%c"}, 't': {"%t"},
	}
	for verb, list := range formats {
		for _, a := range operands() {
			if !meant(verb, a) {
				continue
			}
			for _, format := range list {
				if got, want := Sprintf(format, a), oracle.Sprintf(format, a); got != want {
					t.Errorf("%s of %T %v: %q, want %q", format, a, a, got, want)
				}
			}
		}
	}
}

// meant says if a verb is for an operand: with others the standard library tells of the mistake, which
// vet finds in sources.
func meant(verb byte, a any) bool {
	switch a.(type) {
	case *broken: // a nil pointer is not padded there
		return verb == 'T'
	case []small: // bytes there
		return verb == 'v' || verb == 'd' || verb == 'T'
	case nil:
		return verb == 'v' || verb == 'T'
	case string, word, error, []string, []word:
		return verb == 'v' || verb == 's' || verb == 'q' || verb == 'T' || (verb|0x20) == 'x'
	case titled, time.Duration:
		return verb == 'v' || verb == 's' || verb == 'd' || verb == 'T'
	case []byte:
		return verb == 's' || verb == 'q' || verb == 'T' || (verb|0x20) == 'x'
	case bool:
		return verb == 'v' || verb == 't' || verb == 'T'
	case float64, float32:
		return verb == 'v' || verb == 'f' || verb == 'T'
	case [4]byte:
		return verb == 'v' || verb == 'd' || verb == 'T'
	case rune:
		return verb != 's' && verb != 'f' && verb != 't'
	}
	return verb == 'v' || verb == 'd' || verb == 'T' || verb == 'o' || (verb|0x20) == 'x'
}

func TestMore(t *testing.T) {
	tests := []struct {
		format string
		args   []any
	}{
		{"100%% of %s and %d", []any{"it", 3}}, {"%*d|%0*X", []any{5, 1, 4, 0xab}}, {"%s: %w", []any{"op", fs.ErrExist}}, {"", nil}, {"%", nil}, {"%d", nil},
	}
	for _, tt := range tests {
		got, want := Errorf(tt.format, tt.args...).Error(), oracle.Errorf(tt.format, tt.args...).Error()
		if got != want {
			t.Errorf("%q: %q, want %q", tt.format, got, want)
		}
	}
	for _, args := range [][]any{{1, 2}, {"a", 1, "b", 2, 3}, {1, "a"}, {}, {errors.New("e"), true, nil}, {(*broken)(nil)}} {
		if got, want := Sprint(args...), oracle.Sprint(args...); got != want {
			t.Errorf("Sprint%v: %q, want %q", args, got, want)
		}
		var b, o bytes.Buffer
		_, _ = Fprintln(&b, args...)
		oracle.Fprintln(&o, args...)
		if b.String() != o.String() {
			t.Errorf("Fprintln%v: %q, want %q", args, b.String(), o.String())
		}
	}
}

func TestWrap(t *testing.T) {
	one := Errorf("a: %w", fs.ErrExist)
	two := Errorf("%w and %w", fs.ErrExist, fs.ErrClosed)
	var none *fs.PathError
	switch {
	case !errors.Is(one, fs.ErrExist) || errors.Unwrap(one) != fs.ErrExist:
		t.Error("one is not wrapped")
	case !errors.Is(two, fs.ErrExist) || !errors.Is(two, fs.ErrClosed):
		t.Error("two are not wrapped")
	case errors.As(Errorf("plain %v", fs.ErrExist), &none) || errors.Is(Errorf("%v", fs.ErrExist), fs.ErrExist):
		t.Error("wrapped without being asked to")
	}
}

func TestPanicIsNotSwallowed(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("swallowed")
		}
	}()
	Sprint(exploding{})
}

type exploding struct{}

func (exploding) String() string { panic("no") }

func FuzzFormat(f *testing.F) {
	f.Add("%s %d %q", "a", 3)
	f.Fuzz(func(t *testing.T, format, s string, n int) {
		Sprintf(format, s, n) // ends, and does not panic
		if got, want := Sprintf("%s|%d|%q|%x", s, n, s, s), oracle.Sprintf("%s|%d|%q|%x", s, n, s, s); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}
