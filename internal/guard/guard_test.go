package guard

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

func TestDo(t *testing.T) {
	defer func() {
		if p := recover(); p != "unguarded" {
			t.Errorf("recovered %v, want the panic of a program without OnPanic to go on", p)
		}
	}()
	var got any
	OnPanic = func(reason any, stack []byte) {
		if got = reason; !strings.Contains(string(stack), "TestDo") {
			t.Errorf("stack %s", stack)
		}
	}
	Do(func() { panic("guarded") })
	Do(func() {})
	if got != "guarded" {
		t.Errorf("OnPanic got %v", got)
	}
	OnPanic = nil
	Do(func() { panic("unguarded") })
}

// guestFolders are those of /init's packages. Subfolders count, but for those that are the host's.
var guestFolders = []string{"acpi", "config", "control", "firewall", "genid", "init", "internal/json", "quiesce", "rootfs", "service"}

// bare are goroutines that need no guard, by file: they recover by themselves, belong to a host's or a service's program, or
// to a command, whose end ends nothing else.
var bare = map[string]string{
	"quiesce/machine.go":             "the flow, of which a panic is a fault",
	"control/client.go":              "host side",
	"genid/sysgenid/client_linux.go": "a service's",
}

// TestGoroutinesAreGuarded finds the place where a panic could end PID 1.
func TestGoroutinesAreGuarded(t *testing.T) {
	root := filepath.Join("..", "..")
	for _, folder := range guestFolders {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name, _ := filepath.Rel(root, path)
			name = filepath.ToSlash(name)
			if d.IsDir() && (d.Name() == "testdata" || name == "rootfs/image") {
				return filepath.SkipDir
			}
			if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "init/ctl") || bare[name] != "" {
				return nil
			}
			return findBare(t, path, name)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func findBare(t *testing.T, path, name string) error {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, nil, 0)
	if err != nil {
		return err
	}
	ast.Inspect(file, func(n ast.Node) bool {
		s, ok := n.(*ast.GoStmt)
		if !ok {
			return true
		}
		f, ok := s.Call.Fun.(*ast.SelectorExpr)
		if ok {
			if pkg, ok := f.X.(*ast.Ident); ok && pkg.Name == "guard" && f.Sel.Name == "Do" {
				return true
			}
		}
		t.Errorf("%s:%d: a panic in this goroutine would end PID 1; start it as go guard.Do(func() { ... })", name, files.Position(s.Pos()).Line)
		return true
	})
	return nil
}
