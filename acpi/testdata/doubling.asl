// A string that doubles until memory ends.
// find error evaluation limit reached
DefinitionBlock ("", "SSDT", 2, "ROUSE", "DOUBLING", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Method (ADDR, 0, NotSerialized)
        {
            Local0 = "0123456789abcdef"
            While (One) { Local0 = Concatenate (Local0, Local0) }
            Return (Local0)
        }
    }
}
