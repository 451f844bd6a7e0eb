package genid

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"rouse/acpi"
	"rouse/internal/fmt"
)

// ErrUnreadable is a page of zeros: the kernel hides it or the hypervisor never wrote it.
var ErrUnreadable error = fault("reads as zeros, which is no id")

// Page is the VMGenID page, mapped. Its methods may be called from any goroutine.
type Page struct {
	Device acpi.Device
	page   []byte
	words  *[2]uint64

	mu   sync.Mutex // guards the text of the id that was read last
	last reading
	text string
}

// FindPage finds the VMGenID by the ACPI tables or, where these have none, by the device tree, and maps it. It uses
// Tables, Tree, Memory and Iomem of o. The error wraps acpi.ErrNotFound where the machine has none, and
// ErrUnreadable where its bytes cannot be seen.
func FindPage(o Options) (*Page, error) {
	list, err := readTables(o.Tables)
	if err != nil {
		return nil, err
	}
	read := func(addr uint64, p []byte) error { return readMemory(o.Memory, o.Iomem, addr, p) }
	device, err := acpi.FindVMGenID(list, read)
	if errors.Is(err, acpi.ErrNotFound) && o.Tree != nil {
		if d, treeErr := acpi.FindVMGenIDTree(o.Tree); !noDevice(treeErr) {
			device, err = d, treeErr
		}
	}
	if err != nil {
		return nil, err
	}
	f, err := os.Open(o.Memory)
	if err != nil {
		return nil, fmt.Errorf("VMGenID at %#x: %w (it needs CONFIG_DEVMEM, CAP_SYS_RAWIO and no kernel lockdown)", device.Address, err)
	}
	defer f.Close()
	return mapPage(f, device)
}

// noDevice says that a search has found nothing, or nothing to search in.
func noDevice(err error) bool {
	return errors.Is(err, acpi.ErrNotFound) || errors.Is(err, fs.ErrNotExist)
}

// readTables reads the ACPI tables; a machine without ACPI has none.
func readTables(fsys fs.FS) ([]acpi.Table, error) {
	if fsys == nil {
		return nil, nil
	}
	list, err := acpi.ReadTables(fsys)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return list, err
}

// readMemory reads a field of an AML method, which only some hypervisors' tables need.
func readMemory(mem, iomem string, addr uint64, p []byte) error {
	text, err := os.ReadFile(iomem)
	if err != nil {
		return wrap("memory map", err)
	}
	if !memoryMap(text).isMemory(addr, uint64(len(p))) {
		return fmt.Errorf("physical address %#x: not memory, as %s says; device registers are not read", addr, iomem)
	}
	f, err := os.Open(mem)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.ReadAt(p, int64(addr))
	return err
}

func mapPage(f *os.File, device acpi.Device) (*Page, error) {
	size := uint64(os.Getpagesize())
	offset := device.Address % size
	if offset%8 != 0 || offset > size-IDSize {
		return nil, fmt.Errorf("VMGenID at %#x: not 8-byte aligned within a page", device.Address)
	}
	page, err := mapFile(f, int64(device.Address-offset))
	if err != nil {
		return nil, fmt.Errorf("map %s at %#x: %w", f.Name(), device.Address, err)
	}
	p := &Page{Device: device, page: page, words: (*[2]uint64)(unsafe.Pointer(&page[offset]))}
	if p.Bytes().IsZero() {
		p.Close()
		return nil, fmt.Errorf("VMGenID at %#x: %w", device.Address, ErrUnreadable)
	}
	return p, nil
}

// load reads the id. A hypervisor writes it while no vCPU runs, but its specification does not
// promise that: two equal readings in a row are one id. One that keeps changing is no hypervisor's, and
// any reading of it is as good as another.
func (p *Page) load() reading {
	v := p.glance()
	for range clockTries {
		again := p.glance()
		if again == v {
			break
		}
		v = again
	}
	return v
}

func (p *Page) glance() reading {
	return reading{atomic.LoadUint64(&p.words[0]), atomic.LoadUint64(&p.words[1])}
}

// Bytes is the id at this instant.
func (p *Page) Bytes() ID {
	v := p.load()
	return *(*ID)(unsafe.Pointer(&v))
}

// ID is the id at this instant as text. It allocates only when the id has changed, so that it can be
// called every millisecond.
func (p *Page) ID() string {
	v := p.load()
	p.mu.Lock()
	defer p.mu.Unlock()
	if v != p.last || p.text == "" {
		p.last, p.text = v, formatID(v)
	}
	return p.text
}

// Close unmaps the page.
func (p *Page) Close() error { return unix.Munmap(p.page) }
