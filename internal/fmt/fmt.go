// Package fmt formats as the standard library's does, for what the guest's packages print, in a quarter of
// its size: that package with what only it needs weighs a fiftieth of /init's budget.
//
// The easy case is the same calls with the same result; the standard library is the oracle of the tests.
//
// What differs: verbs are v, s, w, q, d, x, X, o, c, t, f and T, with the flags '-', '0', '#', ' ' and '+', and width and
// precision; operands are strings, bytes, numbers, booleans, errors, what has a String method, and slices of
// these. Anything else prints as its type, in brackets. Formatter and GoStringer are not asked. A panic in
// Error or String is not caught, but for a nil pointer's.
//
// The mechanism is one pass over the format that appends; there is no state to keep between calls.
package fmt

import (
	"io"
	"os"
)

// Stringer is what prints itself.
type Stringer interface{ String() string }

// Appendf appends to b what Sprintf returns.
func Appendf(b []byte, format string, args ...any) []byte {
	p := printer{out: b}
	p.format(format, args)
	return p.out
}

// Append appends to b what Sprint returns.
func Append(b []byte, args ...any) []byte {
	p := printer{out: b, precision: -1}
	wasString := true
	for i, a := range args {
		_, isString := a.(string)
		if i > 0 && !isString && !wasString {
			p.out = append(p.out, ' ')
		}
		p.value(a, 'v')
		wasString = isString
	}
	return p.out
}

// Sprintf formats.
func Sprintf(format string, args ...any) string { return string(Appendf(nil, format, args...)) }

// Sprint prints its operands, with spaces between those that are not strings.
func Sprint(args ...any) string { return string(Append(nil, args...)) }

// Fprintf writes what Sprintf returns, in one write.
func Fprintf(w io.Writer, format string, args ...any) (int, error) {
	return w.Write(Appendf(nil, format, args...))
}

// Fprint writes what Sprint returns.
func Fprint(w io.Writer, args ...any) (int, error) { return w.Write(Append(nil, args...)) }

// Fprintln writes its operands with spaces between them, and a line feed.
func Fprintln(w io.Writer, args ...any) (int, error) {
	p := printer{precision: -1}
	for i, a := range args {
		if i > 0 {
			p.out = append(p.out, ' ')
		}
		p.value(a, 'v')
	}
	return w.Write(append(p.out, '\n'))
}

// Println writes a line to the standard output.
func Println(args ...any) (int, error) { return Fprintln(os.Stdout, args...) }

// Errorf is an error with the text that Sprintf returns. It wraps the operands of verb w.
func Errorf(format string, args ...any) error {
	var p printer
	p.format(format, args)
	switch len(p.wrapped) {
	case 0:
		return &plainError{string(p.out)}
	case 1:
		return &wrapError{string(p.out), p.wrapped[0]}
	}
	return &wrapErrors{string(p.out), p.wrapped}
}

type plainError struct{ text string }

func (e *plainError) Error() string { return e.text }

type wrapError struct {
	text string
	err  error
}

func (e *wrapError) Error() string { return e.text }
func (e *wrapError) Unwrap() error { return e.err }

type wrapErrors struct {
	text string
	errs []error
}

func (e *wrapErrors) Error() string   { return e.text }
func (e *wrapErrors) Unwrap() []error { return e.errs }
