package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rouse/doctor"
)

// A kernel that is safe, one that is not, and what is no configuration; plain and compressed.
func TestDoctor(t *testing.T) {
	const good = "CONFIG_PROC_FS=y\nCONFIG_SYSFS=y\nCONFIG_TMPFS=y\nCONFIG_DEVTMPFS=y\nCONFIG_ACPI=y\nCONFIG_DEVMEM=y\nCONFIG_FUSE_FS=m\nCONFIG_NF_TABLES=m\n" +
		"CONFIG_NF_TABLES_INET=y\nCONFIG_PACKET=y\nCONFIG_CGROUPS=y\n"
	for name, tt := range map[string]struct{ text, out, err string }{
		"safe":     {good, "modules: FUSE_FS", ""},
		"not safe": {strings.Replace(good, "CONFIG_CGROUPS=y", "# CONFIG_CGROUPS is not set", 1), "freezer: NOTHING (vital)", "NOT safe here for want of: freezer"},
		"nothing":  {"hello\n", "", "no kernel configuration"},
	} {
		t.Run(name, func(t *testing.T) {
			var packed bytes.Buffer
			z := gzip.NewWriter(&packed)
			_, _ = z.Write([]byte(tt.text))
			_ = z.Close()
			for file, data := range map[string][]byte{"config": []byte(tt.text), "config.gz": packed.Bytes()} {
				path := filepath.Join(t.TempDir(), file)
				if err := os.WriteFile(path, data, 0o644); err != nil {
					t.Fatal(err)
				}
				var out, diag bytes.Buffer
				err := run([]string{"doctor", "--kernel-config", path}, &out, &diag)
				if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) || !strings.Contains(out.String(), tt.out) {
					t.Errorf("%s: %v\n%s", file, err, out.String())
				}
				if tt.out == "" {
					continue
				}
				out.Reset()
				_ = run([]string{"--json", "doctor", "--kernel-config", path}, &out, &diag) // as above
				var r doctor.Report
				if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.Safe != (tt.err == "") || len(r.Needs) == 0 {
					t.Errorf("%s: %v\n%s", file, err, out.String())
				}
			}
		})
	}
}

func TestDoctorOfBrokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.gz")
	if err := os.WriteFile(path, []byte("\x1f\x8bnot gzip"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"doctor", "--kernel-config", path}, new(bytes.Buffer), new(bytes.Buffer)); err == nil {
		t.Error("a broken file was taken")
	}
}
