// An address that would have to be read from a port.
// find error SystemIO region: not supported
DefinitionBlock ("", "SSDT", 2, "ROUSE", "PORT", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        OperationRegion (IO, SystemIO, 0x5658, 4)
        Field (IO, DWordAcc, NoLock, Preserve) { PORT, 32 }
        Method (ADDR, 0, NotSerialized)
        {
            Local0 = Package (2) { 0, 0 }
            Local0 [0] = PORT
            Return (Local0)
        }
    }
}
