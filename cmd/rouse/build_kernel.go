package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// kernelRelease reads the release out of a bzImage: linux/Documentation/arch/x86/boot.rst, kernel_version. "" is a file of another
// kind, such as an arm64 Image, which does not say.
func kernelRelease(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	head := make([]byte, 64<<10)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.ErrUnexpectedEOF {
		return ""
	}
	return releaseOf(head[:n])
}

func releaseOf(head []byte) string {
	const magic, pointer, base = 0x202, 0x20e, 0x200
	if len(head) < pointer+2 || string(head[magic:magic+4]) != "HdrS" {
		return ""
	}
	at := base + int(binary.LittleEndian.Uint16(head[pointer:]))
	if at == base || at >= len(head) {
		return ""
	}
	text, _, ended := bytes.Cut(head[at:], []byte{0})
	words := strings.Fields(string(text)) // "6.12.9-amd64 (builder) #1 SMP ..."
	if !ended || len(words) == 0 {
		return ""
	}
	return words[0]
}

// release is that of the modules to take: what was asked for, or the kernel's own if the folder has it.
func (b *buildCommand) release() string {
	if b.Release != "" {
		return b.Release
	}
	own := kernelRelease(b.Kernel)
	if own == "" || strings.Contains(own, "/") {
		return ""
	}
	if _, err := os.Stat(filepath.Join(b.Modules, "lib/modules", own)); err != nil {
		return ""
	}
	return own
}

// checkRelease refuses modules that the kernel would not load: the guest would boot without network and gate.
func (b *buildCommand) checkRelease(modules string) error {
	if own := kernelRelease(b.Kernel); own != "" && modules != "" && own != modules {
		return fmt.Errorf("%s is kernel %s, and the modules are for %s; give the modules of that kernel (--modules, --release)", b.Kernel, own, modules)
	}
	return nil
}
