package acpi

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
)

var tablesDir = flag.String("tables", "", "compare every object of the tables in this folder with acpiexec")

// TestTables compares all that a machine's own tables hold with acpiexec, as far as it needs no
// device: run with -tables /sys/firmware/acpi/tables, or a folder of tables captured elsewhere.
func TestTables(t *testing.T) {
	if *tablesDir == "" {
		t.Skip("no -tables folder given")
	}
	tables, err := ReadTables(os.DirFS(*tablesDir))
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(tables, func(uint64, []byte) error { return nil })
	t.Logf("loaded with %d steps, %d bytes, %d names; notes: %v", m.usedSteps, m.usedBytes, len(m.nodes), m.notes)
	var paths []string
	values := map[string]string{}
	for _, n := range m.nodes {
		if c, ok := n.value.(*method); ok && (c.args > 0 || strings.Contains(n.path(), "_INI")) {
			continue
		}
		m.budget.steps, m.budget.heap = evalSteps, heapBytes
		v := evaluateText(m, n.path())
		if v != "error" && v != "object" {
			paths = append(paths, n.path())
			values[n.path()] = v
		}
	}
	sort.Strings(paths)
	files := make([]string, len(tables))
	for i, table := range tables {
		files[i] = filepath.Join(*tablesDir, table.Name)
	}
	acpiexec := tool(t, "acpiexec", "acpica-tools")
	var wg sync.WaitGroup
	running := make(chan struct{}, 16)
	for part := range slices.Chunk(paths, 20) { // its command line has an end
		running <- struct{}{}
		wg.Go(func() {
			defer func() { <-running }()
			want, err := askFiles(acpiexec, &sample{evaluate: part}, files)
			if err != nil {
				t.Error(err)
				return
			}
			for _, path := range part {
				if values[path] != want[path] && want[path] != tooLong {
					t.Errorf("%s is %s, acpiexec says %s", path, values[path], want[path])
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d objects compared", len(paths))
}
