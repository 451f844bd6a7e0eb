// A region at the end of memory.
// find error field lies outside its region
DefinitionBlock ("", "SSDT", 2, "ROUSE", "WRAP", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        OperationRegion (END, SystemMemory, 0xFFFFFFFFFFFFFFFE, 8)
        Field (END, DWordAcc, NoLock, Preserve) { LAST, 32 }
        Method (ADDR, 0, NotSerialized)
        {
            Local0 = Package (2) { 0, 0 }
            Local0 [0] = LAST
            Return (Local0)
        }
    }
}
