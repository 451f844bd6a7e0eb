// Names in a package give what they hold when they are read.
// find \_SB.VGEN  0x20000a000
// evaluate \_SB.VGEN.ADDR \_SB.VGEN.MIX \_SB.VGEN.LATE
DefinitionBlock ("", "SSDT", 2, "ROUSE", "PACKAGEN", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Name (LOW, 0xA000)
        Name (HIGH, 2)
        Name (ADDR, Package (2) { LOW, \_SB.VGEN.HIGH })
        Method (CALL, 0) { Return (1) }
        Name (MIX, Package () { LOW, "LOW", Package () { HIGH } })
        Method (LATE, 0)
        {
            LOW = 0xB000
            Local0 = DerefOf (MIX [0])
            LOW = 0xA000
            Return (Local0)
        }
    }
}
