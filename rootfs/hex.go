package rootfs

import (
	"errors"

	"rouse/internal/fmt"
)

// parseHex reads pairs of hexadecimal digits. Package encoding/hex would bring the standard library's fmt.
func parseHex(text string) ([]byte, error) {
	if len(text)%2 != 0 {
		return nil, errors.New("an odd number of hexadecimal digits")
	}
	b := make([]byte, len(text)/2)
	for i := range len(text) {
		digit := hexDigit(text[i])
		if digit > 15 {
			return nil, fmt.Errorf("%q is no hexadecimal digit", text[i:i+1])
		}
		b[i/2] = b[i/2]<<4 | digit
	}
	return b, nil
}

// hexDigit is above 15 for what is none.
func hexDigit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 16
}
