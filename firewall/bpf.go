package firewall

import (
	"encoding/binary"

	"rouse/internal/fmt"
)

// A small assembler for eBPF (include/uapi/linux/bpf.h; RFC 9669), for
// programs of a few dozen instructions that a library of 1.5 MB would
// otherwise bring along.

// instruction is struct bpf_insn.
type instruction struct {
	op       byte
	dst, src byte
	off      int16
	imm      int32
}

// Operation codes, composed of class, size or source, and mode or operation.
const (
	opLoad8    = 0x71 // LDX | MEM | B
	opLoad16   = 0x69 // LDX | MEM | H
	opLoad32   = 0x61 // LDX | MEM | W
	opLoad64   = 0x79 // LDX | MEM | DW
	opLoadImm  = 0x18 // LD | IMM | DW, two slots
	opStore64  = 0x7a // ST | MEM | DW
	opMovImm   = 0xb7 // ALU64 | MOV | K
	opMovReg   = 0xbf // ALU64 | MOV | X
	opAddImm   = 0x07 // ALU64 | ADD | K
	opAddReg   = 0x0f // ALU64 | ADD | X
	opAndImm   = 0x54 // ALU | AND | K, 32 bits
	opShlImm   = 0x67 // ALU64 | LSH | K
	opJump     = 0x05 // JMP | JA
	opJeqImm   = 0x16 // JMP32 | JEQ | K
	opJneImm   = 0x56 // JMP32 | JNE | K
	opJeqImm64 = 0x15 // JMP | JEQ | K
	opJsltImm  = 0xc5 // JMP | JSLT | K, signed
	opCall     = 0x85
	opExit     = 0x95
	// pseudoMapValue makes opLoadImm load the address of a map's value
	// (BPF_PSEUDO_MAP_VALUE, 5.2).
	pseudoMapValue = 2
)

// Registers: results in r0, arguments in r1 to r5, ours in r6 to r9.
const (
	r0 = iota
	r1
	r2
	r3
	r4
	r5
	r6
	r7
	r8
	r9
	frame
)

// assembler collects instructions and jumps to labels that come later.
type assembler struct {
	code  []instruction
	jumps map[string][]int
	fresh int
}

func (a *assembler) emit(op, dst, src byte, off int16, imm int32) {
	a.code = append(a.code, instruction{op, dst, src, off, imm})
}

// jump emits a jump whose target label is placed later: the verifier of old
// kernels takes no jump backwards.
func (a *assembler) jump(op, dst byte, imm int32, label string) {
	if a.jumps == nil {
		a.jumps = map[string][]int{}
	}
	a.jumps[label] = append(a.jumps[label], len(a.code))
	a.emit(op, dst, 0, 0, imm)
}

// label is where the jumps to that name land.
func (a *assembler) label(name string) {
	for _, at := range a.jumps[name] {
		a.code[at].off = int16(len(a.code) - at - 1)
	}
	delete(a.jumps, name)
}

// unique gives a label's name that is used nowhere else.
func (a *assembler) unique(name string) string {
	a.fresh++
	return fmt.Sprintf("%s %d", name, a.fresh)
}

// bytes is the program as bpf(2) takes it. The two registers share a byte; its
// halves change places with the machine's order of bytes.
func (a *assembler) bytes() ([]byte, error) {
	for name := range a.jumps {
		return nil, fmt.Errorf("assemble: no label %q", name)
	}
	littleEndian := binary.NativeEndian.Uint16([]byte{1, 0}) == 1
	var b []byte
	for _, in := range a.code {
		regs := in.dst | in.src<<4
		if !littleEndian {
			regs = in.dst<<4 | in.src
		}
		b = append(b, in.op, regs)
		b = binary.NativeEndian.AppendUint16(b, uint16(in.off))
		b = binary.NativeEndian.AppendUint32(b, uint32(in.imm))
	}
	return b, nil
}
