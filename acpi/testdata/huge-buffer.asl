// A buffer of two GiB.
// find error evaluation limit reached: memory
DefinitionBlock ("", "SSDT", 2, "ROUSE", "HUGEBUFF", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Method (ADDR, 0, NotSerialized)
        {
            Local1 = 0x7FFFFFFF
            Local0 = Buffer (Local1) {}
            Return (Local0)
        }
    }
}
