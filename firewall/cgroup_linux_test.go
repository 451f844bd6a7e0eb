package firewall

import "testing"

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		`/sys/fs/cgroup`: "/sys/fs/cgroup", `/a\040b\011c\012`: "/a b\tc\n", `\134040`: `\040`, `\134134`: `\134`, `\04`: `\04`,
	} {
		if got := unescape(in); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}
