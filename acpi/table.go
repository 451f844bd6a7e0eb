package acpi

import (
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"path"
	"sort"
	"strings"

	"rouse/internal/fmt"
)

// headerSize is the length of the header that all system description tables begin with (ACPI 6.5,
// 5.2.6): signature, length at 4, revision at 8, checksum at 9, and who made it.
const headerSize = 36

// maxTable and maxTables bound what ReadTables reads, in bytes. Firmware of real machines stays
// below 1 MiB in all.
const (
	maxTable  = 2 << 20
	maxTables = 8 << 20
)

// ErrTable is wrapped by errors about a table whose length or checksum is wrong.
var ErrTable error = fault("damaged ACPI table")

// Table is one AML table: DSDT, SSDT or PSDT.
type Table struct {
	Name string // where it was found, as "DSDT" or "dynamic/SSDT5"
	Data []byte // the whole table with its 36-byte header
}

// signature returns the four letters that say what the table is, "" if it is too short to have any.
func signature(data []byte) string {
	if len(data) < headerSize {
		return ""
	}
	return string(data[:4])
}

// isAML tells whether data begins with the signature of a table that holds AML.
func isAML(data []byte) bool {
	switch signature(data) {
	case "DSDT", "SSDT", "PSDT":
		return true
	}
	return false
}

// body returns the AML of the table after checking its header.
func (t Table) body() ([]byte, error) {
	if !isAML(t.Data) {
		return nil, fmt.Errorf("table %s: %w: no DSDT, SSDT or PSDT", t.Name, ErrTable)
	}
	n := binary.LittleEndian.Uint32(t.Data[4:])
	if n < headerSize || uint64(n) > uint64(len(t.Data)) {
		return nil, fmt.Errorf("table %s: %w: length is %d of %d bytes", t.Name, ErrTable, n, len(t.Data))
	}
	if sum := checksum(t.Data[:n]); sum != 0 {
		return nil, fmt.Errorf("table %s: %w: bytes sum up to %#02x, not 0", t.Name, ErrTable, sum)
	}
	return t.Data[headerSize:n], nil
}

// checksum adds all bytes; a sound table's sum is 0.
func checksum(p []byte) (sum byte) {
	for _, b := range p {
		sum += b
	}
	return sum
}

// ReadTables returns all AML tables among the regular files of fsys, the DSDT first, the others in
// the order of their names with numbers counted as numbers, subfolders such as dynamic/ last. Names
// do not matter otherwise: a table is known by its signature, and files of other kinds are skipped. A
// file may hold several tables, one behind the other. Lengths and checksums are judged by
// [FindVMGenID], which can do without a table that is not the one it needs.
//
// fsys is usually os.DirFS("/sys/firmware/acpi/tables"), which only root can read.
func ReadTables(fsys fs.FS) ([]Table, error) {
	var tables []Table
	total := 0
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return wrap("read ACPI tables", err)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		data, err := readTable(fsys, name)
		if err != nil {
			return err
		}
		if total += len(data); total > maxTables {
			return fmt.Errorf("read ACPI tables: %w: more than %d bytes", ErrTable, maxTables)
		}
		tables = append(tables, split(name, data)...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	sort.SliceStable(tables, func(a, b int) bool { return compare(tables[a], tables[b]) < 0 })
	return tables, nil
}

// readTable returns the content of a file that begins as an ACPI table that may hold AML, and
// nothing for other files, of which it reads only the header: beside the tables, sysfs has whole
// error logs under data/.
func readTable(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, wrap("read ACPI tables", err)
	}
	defer f.Close()
	head := make([]byte, headerSize)
	switch _, err := io.ReadFull(f, head); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, nil
	case err != nil:
		return nil, wrap("read ACPI tables", err)
	}
	if !plausible(head) {
		return nil, nil
	}
	rest, err := io.ReadAll(io.LimitReader(f, maxTable-headerSize+1))
	switch {
	case err != nil:
		return nil, wrap("read ACPI tables", err)
	case len(rest) > maxTable-headerSize && isAML(head):
		return nil, fmt.Errorf("table %s: %w: more than %d bytes", name, ErrTable, maxTable)
	case len(rest) > maxTable-headerSize:
		return nil, nil
	}
	return append(head, rest...), nil
}

// plausible tells whether head begins with a signature: four capital letters, digits or the like.
func plausible(head []byte) bool {
	for _, b := range head[:4] {
		if b < '!' || b > 'Z' {
			return false
		}
	}
	return true
}

// split takes a file apart into its AML tables. QEMU keeps all tables in one blob, and so do dumps of
// memory; trailing bytes that are no table stay with the last one, where they do no harm.
func split(name string, data []byte) []Table {
	var tables []Table
	for rest := data; len(rest) >= headerSize && plausible(rest); {
		n := binary.LittleEndian.Uint32(rest[4:])
		whole := n < headerSize || uint64(n) > uint64(len(rest))
		if whole {
			n = uint32(len(rest))
		}
		if isAML(rest) {
			tables = append(tables, Table{Name: name, Data: rest[:n:n]})
		}
		rest = rest[n:]
	}
	return tables
}

// compare orders tables as firmware lists them, as far as file names tell.
func compare(a, b Table) int {
	return cmp.Or(
		cmp.Compare(rank(a), rank(b)),
		cmp.Compare(strings.Count(a.Name, "/"), strings.Count(b.Name, "/")),
		cmp.Compare(path.Dir(a.Name), path.Dir(b.Name)),
		compareNatural(a.Name, b.Name),
	)
}

func rank(t Table) int {
	if signature(t.Data) == "DSDT" {
		return 0
	}
	return 1
}

// compareNatural orders SSDT2 before SSDT10.
func compareNatural(a, b string) int {
	pa, na := trailingNumber(a)
	pb, nb := trailingNumber(b)
	return cmp.Or(cmp.Compare(pa, pb), cmp.Compare(len(na), len(nb)), cmp.Compare(na, nb))
}

func trailingNumber(s string) (prefix, digits string) {
	prefix = strings.TrimRight(s, "0123456789")
	return prefix, strings.TrimLeft(s[len(prefix):], "0")
}
