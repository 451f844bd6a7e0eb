package genid

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"rouse/acpi"
)

// ErrUnreadable is a page of zeros: the kernel hides it or the hypervisor never wrote it.
var ErrUnreadable = errors.New("reads as zeros, which is no id")

// Page is the VMGenID page, mapped. Its methods may be called from any goroutine.
type Page struct {
	Device acpi.Device
	page   []byte
	words  *[2]uint64

	mu   sync.Mutex // guards the text of the id that was read last
	last [2]uint64
	text string
}

// OpenPage finds the VMGenID by the ACPI tables in tables (/sys/firmware/acpi/tables) and maps it from
// mem (/dev/mem). The error wraps acpi.ErrNotFound where the machine has none, and ErrUnreadable where
// its bytes cannot be seen.
func OpenPage(tables fs.FS, mem string) (*Page, error) {
	list, err := acpi.ReadTables(tables)
	if err != nil {
		return nil, fmt.Errorf("ACPI tables: %w", err)
	}
	f, err := os.OpenFile(mem, os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("%w (it needs CONFIG_DEVMEM, CAP_SYS_RAWIO and no kernel lockdown)", err)
	}
	defer f.Close()
	device, err := acpi.FindVMGenID(list, func(addr uint64, p []byte) error {
		_, err := f.ReadAt(p, int64(addr))
		return err
	})
	if err != nil {
		return nil, err
	}
	return mapPage(f, device)
}

func mapPage(f *os.File, device acpi.Device) (*Page, error) {
	size := uint64(os.Getpagesize())
	offset := device.Address % size
	if offset%8 != 0 || offset > size-IDSize {
		return nil, fmt.Errorf("VMGenID at %#x: not 8-byte aligned within a page", device.Address)
	}
	page, err := unix.Mmap(int(f.Fd()), int64(device.Address-offset), int(size), unix.PROT_READ, unix.MAP_SHARED)
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
// promise that: two equal readings in a row are one id.
func (p *Page) load() [2]uint64 {
	v := [2]uint64{atomic.LoadUint64(&p.words[0]), atomic.LoadUint64(&p.words[1])}
	for {
		again := [2]uint64{atomic.LoadUint64(&p.words[0]), atomic.LoadUint64(&p.words[1])}
		if again == v {
			return v
		}
		v = again
	}
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
		p.last, p.text = v, (*(*ID)(unsafe.Pointer(&v))).String()
	}
	return p.text
}

// Close unmaps the page.
func (p *Page) Close() error { return unix.Munmap(p.page) }
