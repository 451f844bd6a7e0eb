package json

import "rouse/internal/fmt"

// scanner checks text by the grammar of RFC 8259.
type scanner struct {
	text []byte
	at   int
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func (s *scanner) space() {
	for s.at < len(s.text) && isSpace(s.text[s.at]) {
		s.at++
	}
}

// peek is the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

func (s *scanner) fail(want string) error {
	if s.at >= len(s.text) {
		return fmt.Errorf("json: the text ends where %s should be", want)
	}
	return fmt.Errorf("json: %q at byte %d, where %s should be", s.text[s.at], s.at+1, want)
}

// whole checks that the text is one value.
func (s *scanner) whole() error {
	s.space()
	if err := s.skip(0); err != nil {
		return err
	}
	s.space()
	if s.at < len(s.text) {
		return fmt.Errorf("json: more than one value: %q at byte %d", s.text[s.at], s.at+1)
	}
	return nil
}

// skip goes over one value.
func (s *scanner) skip(depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("json: nested deeper than %d levels", maxDepth)
	}
	switch c := s.peek(); {
	case c == '{':
		return s.items('}', depth, true)
	case c == '[':
		return s.items(']', depth, false)
	case c == '"':
		return s.quoted()
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if len(s.text)-s.at >= len(word) && string(s.text[s.at:s.at+len(word)]) == word {
			s.at += len(word)
			return nil
		}
	}
	return s.fail("a value")
}

func (s *scanner) items(closing byte, depth int, keys bool) error {
	s.at++
	s.space()
	if s.peek() == closing {
		s.at++
		return nil
	}
	for {
		s.space()
		if keys {
			if err := s.key(); err != nil {
				return err
			}
		}
		if err := s.skip(depth + 1); err != nil {
			return err
		}
		s.space()
		switch s.peek() {
		case ',':
			s.at++
		case closing:
			s.at++
			return nil
		default:
			return s.fail("a comma or a closing bracket")
		}
	}
}

func (s *scanner) key() error {
	if s.peek() != '"' {
		return s.fail("a key")
	}
	if err := s.quoted(); err != nil {
		return err
	}
	s.space()
	if s.peek() != ':' {
		return s.fail("a colon")
	}
	s.at++
	s.space()
	return nil
}

func (s *scanner) quoted() error {
	for s.at++; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; {
		case c == '"':
			s.at++
			return nil
		case c < ' ':
			return s.fail("a character of a string")
		case c == '\\':
			s.at++
			if err := s.escaped(); err != nil {
				return err
			}
		}
	}
	return s.fail("the end of a string")
}

// escaped checks what stands behind a backslash and stops at its last byte.
func (s *scanner) escaped() error {
	switch s.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return nil
	case 'u':
		for range 4 {
			s.at++
			c := s.peek() | 0x20
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') || s.peek() < '0' {
				return s.fail("a hexadecimal digit")
			}
		}
		return nil
	}
	return s.fail("an escape")
}

func (s *scanner) digits() bool {
	start := s.at
	for c := s.peek(); c >= '0' && c <= '9'; c = s.peek() {
		s.at++
	}
	return s.at > start
}

func (s *scanner) number() error {
	if s.peek() == '-' {
		s.at++
	}
	if s.peek() == '0' {
		s.at++
	} else if !s.digits() {
		return s.fail("a digit")
	}
	if s.peek() == '.' {
		s.at++
		if !s.digits() {
			return s.fail("a digit")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		if !s.digits() {
			return s.fail("a digit")
		}
	}
	return nil
}
