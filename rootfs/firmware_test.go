package rootfs

import (
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
)

// smbios makes a table of structures: type, formatted length, strings.
func smbios(structures ...any) []byte {
	var b []byte
	for i := 0; i < len(structures); i += 2 {
		kind, text := structures[i].(int), structures[i+1].([]string)
		b = append(b, byte(kind), 5, 0, 0, byte(len(text)))
		for _, s := range text {
			b = append(append(b, s...), 0)
		}
		if len(text) == 0 {
			b = append(b, 0)
		}
		b = append(b, 0)
	}
	return b
}

func TestCredentials(t *testing.T) {
	table := smbios(0, []string{"vendor"}, 1, []string{}, 11, []string{"io.systemd.credential:a=b=c", "hello", "io.systemd.credential:a=second"},
		11, []string{"io.systemd.credential.binary:bin=AAEC", "io.systemd.credential.binary:bad=?", "io.systemd.credential:vmm.notify_socket=vsock:2:1"},
		127, []string{}, 11, []string{"io.systemd.credential:behind=the end"})
	want := map[string][]byte{"a": []byte("b=c"), "bin": {0, 1, 2}, "vmm.notify_socket": []byte("vsock:2:1")}
	if got := credentials(oemStrings(table)); !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for n := range table { // cut off anywhere: less, and no panic
		if got := oemStrings(table[:n]); len(got) > 6 {
			t.Errorf("cut at %d: %q", n, got)
		}
	}
}

func TestFirmwareFiles(t *testing.T) {
	fsys := fstest.MapFS{"opt/rouse/rouse.toml/raw": {Data: []byte("x = 1")}, "opt/rouse/d/one/raw": {Data: []byte("1")}, "opt/rouse/rouse.toml/size": {Data: []byte("5")},
		"opt/other/raw": {}}
	want := map[string][]byte{"rouse.toml": []byte("x = 1"), "d/one": []byte("1")}
	if got, err := readFirmware(fsys, "opt/rouse"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := readFirmware(fsys, "opt/none"); err != nil || len(got) != 0 {
		t.Errorf("%q, %v", got, err)
	}
}

func FuzzOEMStrings(f *testing.F) {
	f.Add(smbios(11, []string{"io.systemd.credential:a=b"}, 127, []string{}))
	f.Fuzz(func(t *testing.T, table []byte) {
		total := 0
		for _, s := range oemStrings(table) {
			if strings.ContainsRune(s, 0) {
				t.Fatalf("%q holds a zero byte", s)
			}
			total += len(s)
		}
		if total > len(table) {
			t.Fatalf("%d bytes of strings from %d", total, len(table))
		}
	})
}
