package image

import (
	"bytes"
	"testing"
)

func TestWithoutSignature(t *testing.T) {
	elf := []byte("\x7fELF and more")
	signed := func(signer, id, length byte, body string) []byte {
		m := append(bytes.Clone(elf), body...)
		m = append(m, 0, 4, 2, signer, id, 0, 0, 0, 0, 0, 0, length)
		return append(m, signatureEnd...)
	}
	tests := map[string]struct{ module, want []byte }{
		"none":       {elf, elf},
		"pkcs7":      {signed(0, 0, 5, "SIGNA"), elf},
		"signer":     {signed(2, 1, 3, "SSKAAA"), elf},
		"too long":   {signed(0, 0, 200, "SIGNA"), signed(0, 0, 200, "SIGNA")},
		"no header":  {[]byte(signatureEnd), []byte(signatureEnd)},
		"empty file": {nil, nil},
	}
	for name, tt := range tests {
		if got := withoutSignature(tt.module); !bytes.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
