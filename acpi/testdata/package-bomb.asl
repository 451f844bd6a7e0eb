// A package that is stored into itself, twice as large each time.
// find error evaluation limit reached
DefinitionBlock ("", "SSDT", 2, "ROUSE", "PACKAGEB", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Method (ADDR, 0, NotSerialized)
        {
            Local0 = Package (4) { 1, 2, 3, 4 }
            While (One)
            {
                Local1 = Local0
                Local0 [0] = Local1
                Local0 [1] = Local1
            }
            Return (Local0)
        }
    }
}
