package acpi

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// table makes a sound table around AML.
func table(name, signature string, revision byte, aml ...byte) Table {
	data := make([]byte, headerSize, headerSize+len(aml))
	copy(data, signature)
	data[8] = revision
	data = append(data, aml...)
	binary.LittleEndian.PutUint32(data[4:], uint32(len(data)))
	data[9] = -checksum(data)
	return Table{Name: name, Data: data}
}

func file(data ...[]byte) *fstest.MapFile { return &fstest.MapFile{Data: slices.Concat(data...)} }

func TestReadTables(t *testing.T) {
	dsdt, ssdt := table("", "DSDT", 2).Data, table("", "SSDT", 2).Data
	facp := table("", "FACP", 2, 1, 2, 3).Data
	tests := []struct {
		name string
		fsys fstest.MapFS
		want string
	}{
		{"empty", fstest.MapFS{}, ""},
		{"order", fstest.MapFS{
			"SSDT10": file(ssdt), "SSDT2": file(ssdt), "DSDT": file(dsdt), "dynamic/SSDT11": file(ssdt), "A/SSDT3": file(ssdt),
		}, "DSDT SSDT2 SSDT10 A/SSDT3 dynamic/SSDT11"},
		{"any name", fstest.MapFS{"b": file(ssdt), "a.bin": file(ssdt), "z": file(dsdt)}, "z a.bin b"},
		{"others skipped", fstest.MapFS{"FACP": file(facp), "short": file([]byte("DSDT")), "none": file(), "SSDT": file(ssdt)}, "SSDT"},
		{"several in one file", fstest.MapFS{"all": file(facp, dsdt, ssdt, facp, ssdt, []byte("\x00\x00tail"))}, "all all all"},
		{"length beyond the end", fstest.MapFS{"SSDT": file(ssdt[:4], []byte{255, 255, 255, 255}, ssdt[8:])}, "SSDT"},
		{"length zero", fstest.MapFS{"SSDT": file(ssdt[:4], []byte{0, 0, 0, 0}, ssdt[8:], ssdt)}, "SSDT"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tables, err := ReadTables(tt.fsys)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, table := range tables {
				names = append(names, table.Name)
			}
			if got := strings.Join(names, " "); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestReadTablesTooLarge(t *testing.T) {
	huge := append(table("", "SSDT", 2).Data, make([]byte, maxTable)...)
	if _, err := ReadTables(fstest.MapFS{"SSDT": file(huge)}); !errors.Is(err, ErrTable) {
		t.Errorf("one table: %v", err)
	}
	fsys := fstest.MapFS{}
	for i := range maxTables/maxTable + 2 {
		fsys[string(rune('a'+i))] = file(huge[:maxTable-10])
	}
	if _, err := ReadTables(fsys); !errors.Is(err, ErrTable) {
		t.Errorf("many tables: %v", err)
	}
	log := append(table("", "BERT", 2).Data, make([]byte, maxTable)...)
	if tables, err := ReadTables(fstest.MapFS{"data/BERT": file(log)}); err != nil || len(tables) != 0 {
		t.Errorf("large file of another kind: %d tables, %v", len(tables), err)
	}
}

func TestReadTablesUnreadable(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root reads everything")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "DSDT"), table("", "DSDT", 2).Data, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadTables(os.DirFS(dir)); !errors.Is(err, os.ErrPermission) {
		t.Errorf("got %v, want permission denied", err)
	}
}

func TestDamagedTables(t *testing.T) {
	good, err := os.ReadFile("testdata/qemu.aml")
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(good)
	flipped[len(flipped)-1] ^= 1
	damaged := []Table{
		{"flipped", flipped},
		{"short", good[:len(good)-1]},
		{"header only", good[:headerSize]},
		{"empty", nil},
		{"other", table("", "FACP", 2).Data},
	}
	for _, bad := range damaged {
		_, err := FindVMGenID([]Table{bad}, nil)
		if !errors.Is(err, ErrNotFound) || !errors.Is(err, ErrTable) || !strings.Contains(err.Error(), bad.Name) {
			t.Errorf("%s alone: %v", bad.Name, err)
		}
		if d, err := FindVMGenID([]Table{bad, {"good", good}}, nil); err != nil || d.Table != "good" {
			t.Errorf("%s beside a good one: %+v, %v", bad.Name, d, err)
		}
	}
	if d, err := FindVMGenID([]Table{{"longer", append(slices.Clone(good), 1, 2, 3)}}, nil); err != nil || d.Address != 0xffff028 {
		t.Errorf("bytes behind the table: %+v, %v", d, err)
	}
	if _, err := FindVMGenID(nil, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("no tables: %v", err)
	}
}
