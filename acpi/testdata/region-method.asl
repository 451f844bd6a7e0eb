// A region made in a method at an address that is an argument.
// find \_SB.VGEN  0x5a5a5a5a5a5a
// evaluate \_SB.VGEN.ADDR \PEEK
// fill 0x5A
DefinitionBlock ("", "SSDT", 2, "ROUSE", "REGIONME", 1)
{
    Method (RD, 2, Serialized)
    {
        OperationRegion (R, SystemMemory, Arg0, Arg1)
        Field (R, DWordAcc, NoLock, Preserve) { VAL, 32 }
        Return (VAL)
    }
    Method (PEEK, 0) { Return (RD (0x1000, 4) + RD (0x2000, 8)) }
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Method (ADDR, 0, NotSerialized)
        {
            Local0 = Package (2) { 0, 0 }
            Local0 [0] = RD (0x3000, 0x10)
            Local0 [1] = (RD (0x4000, 4) & 0xFFFF)
            Return (Local0)
        }
    }
}
