package rootfs

import (
	"bytes"
	"encoding/base64"
	"strings"
)

// oemStrings returns all strings of type 11 structures in an SMBIOS table (DMTF DSP0134 3.7, sections 6.1 and 7.12), in the
// order of the table. A table that is cut off gives what is before the cut.
func oemStrings(table []byte) []string {
	const typeOEM, typeEnd, header = 11, 127, 4
	var out []string
	for len(table) >= header {
		kind, length := table[0], int(table[1])
		if kind == typeEnd || length < header || length > len(table) {
			return out
		}
		end := bytes.Index(table[length:], []byte{0, 0})
		if end < 0 {
			return out
		}
		if kind == typeOEM && end > 0 {
			out = append(out, strings.Split(string(table[length:length+end]), "\x00")...)
		}
		table = table[length+end+2:]
	}
	return out
}

// credentials picks systemd's credentials out of OEM strings (systemd.exec(5), "io.systemd.credential:NAME=VALUE" and, in
// base64, "io.systemd.credential.binary:NAME=VALUE"). The first one of a name counts; broken base64 is left out.
func credentials(oem []string) map[string][]byte {
	out := map[string][]byte{}
	for _, s := range oem {
		kind, assignment, _ := strings.Cut(s, ":")
		name, text, ok := strings.Cut(assignment, "=")
		if !ok || name == "" || out[name] != nil {
			continue
		}
		switch kind {
		case "io.systemd.credential":
			out[name] = []byte(text)
		case "io.systemd.credential.binary":
			if b, err := base64.StdEncoding.DecodeString(text); err == nil {
				out[name] = b
			}
		}
	}
	return out
}
