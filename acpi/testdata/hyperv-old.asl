// Hyper-V, older: the old _HID, fields that firmware filled.
// find \_SB.GENC Hyper_V_Gen_Counter_V1 0x5a5a5a5a5a5a5a5a
// evaluate \_SB.GENC.ADDR \_SB.GENC._CID
// fill 0x5A
DefinitionBlock ("", "DSDT", 1, "ROUSE", "HYPERVOL", 1)
{
    Scope (\_SB)
    {
        OperationRegion (BIOS, SystemMemory, 0xFED3F000, 0x10)
        Field (BIOS, AnyAcc, NoLock, Preserve) { GCAL, 32, GCAH, 32 }
        Device (GENC)
        {
            Name (_HID, "Hyper_V_Gen_Counter_V1")
            Name (_CID, Package () { "VM_Gen_Counter" })
            Method (ADDR, 0, NotSerialized)
            {
                Local0 = Package (2) {}
                Local0 [0] = GCAL
                Local0 [1] = GCAH
                Return (Local0)
            }
        }
    }
}
