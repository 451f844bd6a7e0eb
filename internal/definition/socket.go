package definition

import (
	"net/netip"
	"strings"
)

// ParseListen splits "tcp:ADDRESS:PORT", "udp:ADDRESS:PORT" or "unix:/PATH" into what socket(2) and bind(2) want.
func ParseListen(text string) (network string, at netip.AddrPort, path, why string) {
	network, path, _ = strings.Cut(text, ":")
	switch network {
	case "tcp", "udp":
		var err error
		if at, err = netip.ParseAddrPort(path); err != nil {
			why = err.Error()
		}
	case "unix":
		why = unixPath(path)
	default:
		why = "not tcp:ADDRESS:PORT, udp:ADDRESS:PORT or unix:/PATH"
	}
	return network, at, path, why
}

// unixPath knows the 108 bytes of sun_path (unix(7)), with the zero at its end.
func unixPath(path string) string {
	if !strings.HasPrefix(path, "/") || len(path) > 107 {
		return "no absolute path of at most 107 bytes"
	}
	return ""
}

// CheckSocketName refuses what would garble LISTEN_FDNAMES, by the rule of sd_pid_notify_with_fds(3).
func CheckSocketName(name string) (why string) {
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || c == ':' {
			return "only printable ASCII without blank and colon"
		}
	}
	if len(name) > 255 {
		return "longer than 255 bytes"
	}
	return ""
}
