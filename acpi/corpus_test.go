package acpi

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sample is one ASL source of testdata with what its comments say:
//
//	// find PATH HID ADDRESS     what FindVMGenID returns, or: find error TEXT
//	// evaluate PATH...          what is compared with acpiexec
//	// with NAME...              samples loaded together with it
//	// fill BYTE                 what all memory holds that nothing has stored into
type sample struct {
	name     string
	find     []string
	evaluate []string
	with     []string
	fill     byte
}

func samples(t testing.TB) []sample {
	t.Helper()
	files, err := filepath.Glob("testdata/*.asl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	var all []sample
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s := sample{name: strings.TrimSuffix(filepath.Base(file), ".asl")}
		for line := range strings.Lines(string(text)) {
			s.directive(strings.Fields(line))
		}
		all = append(all, s)
	}
	return all
}

func (s *sample) directive(words []string) {
	if len(words) < 3 || words[0] != "//" {
		return
	}
	switch words[1] {
	case "find":
		s.find = words[2:]
	case "evaluate":
		s.evaluate = append(s.evaluate, words[2:]...)
	case "with":
		s.with = words[2:]
	case "fill":
		fmt.Sscanf(words[2], "0x%x", &s.fill)
	}
}

func (s *sample) tables(t testing.TB) []Table {
	t.Helper()
	var tables []Table
	for _, name := range append([]string{s.name}, s.with...) {
		data, err := os.ReadFile(filepath.Join("testdata", name+".aml"))
		if err != nil {
			t.Fatal(err)
		}
		tables = append(tables, Table{Name: name, Data: data})
	}
	return tables
}

func (s *sample) read(_ uint64, p []byte) error {
	for i := range p {
		p[i] = s.fill
	}
	return nil
}

func TestFindVMGenID(t *testing.T) {
	for _, s := range samples(t) {
		if s.find == nil {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			d, err := FindVMGenID(s.tables(t), s.read)
			got := strings.Join(strings.Fields(fmt.Sprintf("%s %s %#x", d.Path, d.HID, d.Address)), " ")
			want := strings.Join(s.find, " ")
			if text, ok := strings.CutPrefix(want, "error "); ok {
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Fatalf("got %s, error %v; want error %q", got, err, text)
				}
				return
			}
			if err != nil || got != want {
				t.Fatalf("got %s, error %v; want %s", got, err, want)
			}
		})
	}
}
