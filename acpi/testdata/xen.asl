// Xen: a field of a region in system memory, stored into a named package.
// find \_SB.PCI0.ISA.VGID XEN0000 0x5a5a5a5a
// evaluate \_SB.PCI0.ISA.VGID.ADDR \_SB.PCI0.ISA.VGID._HID \_SB.VGIA
// fill 0x5A
DefinitionBlock ("", "DSDT", 2, "ROUSE", "XEN", 1)
{
    Scope (\_SB)
    {
        OperationRegion (BIOS, SystemMemory, 0xFC000000, 0x100)
        Field (BIOS, ByteAcc, NoLock, Preserve)
        {
            UAR1, 1,
            UAR2, 1,
            LTP1, 1,
            HPET, 1,
            Offset (4),
            PMIN, 32,
            PLEN, 32,
            MSUA, 32,
            MAPA, 32,
            VGIA, 32
        }
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A03"))
            Device (ISA)
            {
                Name (_ADR, 0x00010000)
                Device (VGID)
                {
                    Name (_HID, EisaId ("XEN0000"))
                    Name (_CID, "VM_Gen_Counter")
                    Name (_DDN, "VM_Gen_Counter")
                    Name (PKG, Package (2) { 0, 0 })
                    Method (_STA, 0, NotSerialized)
                    {
                        Store (\_SB.VGIA, Local0)
                        If (LEqual (Local0, 0)) { Return (0x00) }
                        Return (0x0F)
                    }
                    Method (ADDR, 0, NotSerialized)
                    {
                        Store (\_SB.VGIA, Index (PKG, 0))
                        Return (PKG)
                    }
                }
            }
        }
    }
}
