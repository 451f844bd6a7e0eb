// An SSDT of revision 2 beside a DSDT of revision 1 has 32-bit integers too.
// find \_SB.VGEN  0x100000028
// evaluate \_SB.VGEN.ADDR \WIDE
// with empty-dsdt
DefinitionBlock ("", "SSDT", 2, "ROUSE", "NARROWSS", 1)
{
    Name (WIDE, 0x1122334455667788)
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Method (ADDR, 0, NotSerialized)
        {
            Local0 = Package (2) {}
            Local1 = 0xFFFFFFFF
            Local0 [0] = (Local1 + 0x29)
            Local0 [1] = (Local1 >> 32)
            Return (Local0)
        }
    }
}
