/* The guest of ProbeKVM: from a multiboot loader's 32-bit mode through paging into 64-bit mode, a few
   instructions that hypervisors trip over, then a byte to QEMU's debug exit port.
   Build: as --32 -o probe.o probe.S && ld -m elf_i386 -Ttext=0x100000 --oformat=binary -o probe.bin probe.o */
	.code32
	.globl _start
_start:
	jmp main
	.align 4
header:	/* Multiboot 0.6.96, 3.1.1: magic, flags (address fields valid), checksum, addresses */
	.long 0x1BADB002, 0x00010000, -(0x1BADB002 + 0x00010000)
	.long header, _start, end, bss_end, main

main:	movl $stack_top, %esp
	/* one PML4 entry, one PDPT entry, 512 pages of 2 MiB: the first GiB as it is */
	movl $(pdpt + 3), pml4
	movl $(pd + 3), pdpt
	movl $0x83, %eax
	movl $pd, %edi
1:	movl %eax, (%edi)
	movl $0, 4(%edi)
	addl $8, %edi
	addl $0x200000, %eax
	cmpl $0x40000083, %eax
	jne 1b
	movl $pml4, %eax
	movl %eax, %cr3
	movl %cr4, %eax
	orl $0x620, %eax	/* PAE, OSFXSR, OSXMMEXCPT */
	movl %eax, %cr4
	movl $0xC0000080, %ecx	/* EFER.LME */
	rdmsr
	orl $0x100, %eax
	wrmsr
	movl %cr0, %eax
	andl $~4, %eax
	orl $0x80000002, %eax
	movl %eax, %cr0
	lgdt gdtr
	ljmp $8, $long_mode
	.code64
long_mode:
	xorl %eax, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	cpuid
	rdtsc
	movl $0x10, %ecx	/* IA32_TIME_STAMP_COUNTER */
	rdmsr
	xorps %xmm0, %xmm0
	movaps %xmm0, scratch(%rip)
	lidt idtr(%rip)
	movl $0x1B, %ecx	/* IA32_APIC_BASE */
	rdmsr
	movw $0xf4, %dx
	movb $0x2a, %al
	outb %al, %dx
2:	hlt
	jmp 2b

	.align 16
gdt:	.quad 0, 0x00AF9A000000FFFF
gdtr:	.word gdtr - gdt - 1
	.long gdt
idtr:	.word 0
	.quad 0
	.align 16
end:
	.bss
	.align 4096
pml4:	.skip 4096
pdpt:	.skip 4096
pd:	.skip 4096
scratch: .skip 16
stack:	.skip 4096
stack_top:
bss_end:
