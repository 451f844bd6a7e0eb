// A loop without an end.
// find error evaluation limit reached: steps
DefinitionBlock ("", "SSDT", 2, "ROUSE", "ENDLESS", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Method (ADDR, 0, NotSerialized)
        {
            While (One) {}
            Return (Package (2) { 1, 0 })
        }
    }
}
