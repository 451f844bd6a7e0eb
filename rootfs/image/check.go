package image

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// machines are the guests' architectures: GOARCH and the ELF machine.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// CommandError is a program of Spec.Commands that the guest could not run.
type CommandError struct {
	Path string
	Err  error
}

func (e *CommandError) Error() string { return "service binary " + e.Path + ": " + e.Err.Error() }

func (e *CommandError) Unwrap() error { return e.Err }

// check looks at what will be executed, as the guest's kernel will.
func (b *builder) check() error {
	if err := b.checkInit(); err != nil {
		return err
	}
	for _, c := range b.spec.Commands {
		if err := b.checkCommand(c, maxInterpreters); err != nil {
			return &CommandError{c, err}
		}
	}
	return nil
}

func (b *builder) checkInit() error {
	f, err := b.openELF("/init")
	if err != nil {
		return fmt.Errorf("init %s: %w; want rouse's init binary, as `make build` leaves it in out/init", b.spec.Init, err)
	}
	if interpreter(f) != "" {
		return fmt.Errorf("init %s: it is linked dynamically, and nothing could load it; build it with CGO_ENABLED=0", b.spec.Init)
	}
	b.arch = b.spec.Arch
	if b.arch == "" {
		for arch, m := range machines {
			if m == f.Machine {
				b.arch = arch
			}
		}
	}
	if machines[b.arch] != f.Machine {
		return fmt.Errorf("init %s: it is for %s, the guest is %q; build it with GOARCH=%s", b.spec.Init, f.Machine, b.arch, b.arch)
	}
	return nil
}

// maxInterpreters is how deep "#!" may nest; the kernel's limit (fs/exec.c exec_binprm: depth > 5).
const maxInterpreters = 5

func (b *builder) checkCommand(name string, depth int) error {
	if !path.IsAbs(name) {
		return errors.New("not an absolute path; write the whole path")
	}
	e := b.image.tree.lookup(name)
	switch {
	case e == nil:
		return errors.New("it is not in the image; add it to the files, or check the path")
	case !e.isRegular():
		return errors.New("it is not a plain file")
	case e.mode&0o111 == 0:
		return fmt.Errorf("it is not executable (mode %04o); chmod +x it", e.mode&0o7777)
	}
	head, err := e.head(256) // BINPRM_BUF_SIZE, include/uapi/linux/binfmts.h
	if err != nil {
		return err
	}
	if script, ok := bytes.CutPrefix(head, []byte("#!")); ok {
		return b.checkScript(script, depth)
	}
	f, err := b.openELF(name)
	if err != nil {
		return err
	}
	if f.Machine != machines[b.arch] {
		return fmt.Errorf("it is for %s, the guest is %s", f.Machine, b.arch)
	}
	return b.checkLoader(f)
}

func (b *builder) checkScript(script []byte, depth int) error {
	line, _, _ := bytes.Cut(script, []byte("\n"))
	words := strings.Fields(string(line))
	if len(words) == 0 || depth == 0 {
		return errors.New("its #! line names no interpreter")
	}
	if err := b.checkCommand(words[0], depth-1); err != nil {
		return fmt.Errorf("its interpreter %s: %w", words[0], err)
	}
	return nil
}

// checkLoader checks that a dynamic program's loader and libraries are in the image. Libraries are looked for by name
// anywhere: where the loader searches is its own business, but what is nowhere it cannot find.
func (b *builder) checkLoader(f *elf.File) error {
	loader := interpreter(f)
	if loader == "" {
		return nil
	}
	if b.image.tree.lookup(loader) == nil {
		return fmt.Errorf("it is linked dynamically and its loader %s is not in the image; build it statically (Go: CGO_ENABLED=0), or include a root folder that has it", loader)
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read its libraries: %w", err)
	}
	have := map[string]bool{}
	for p := range b.image.tree.entries {
		have[path.Base(p)] = true
	}
	for _, lib := range needed {
		if !have[path.Base(lib)] {
			return fmt.Errorf("it needs %s, which is not in the image; include a root folder that has it", lib)
		}
	}
	return nil
}

func interpreter(f *elf.File) string {
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b, err := io.ReadAll(io.LimitReader(p.Open(), 4096))
			if err != nil {
				return "?"
			}
			return string(bytes.TrimRight(b, "\x00"))
		}
	}
	return ""
}

// openELF reads the whole file: programs are small beside what building an image moves.
func (b *builder) openELF(name string) (*elf.File, error) {
	e := b.image.tree.lookup(name)
	if e == nil {
		return nil, errors.New("it is not in the image")
	}
	r, err := e.open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	all, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(all))
	if err != nil {
		return nil, fmt.Errorf("it is not an ELF program: %w", err)
	}
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return nil, fmt.Errorf("it is not an ELF program but %s", f.Type)
	}
	return f, nil
}

func (e *entry) head(n int) ([]byte, error) {
	r, err := e.open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := bufio.NewReaderSize(r, n).Peek(n)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b, err
}
