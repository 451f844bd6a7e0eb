// An SSDT that uses names and methods of the DSDT.
// find \_SB.VGEN  0x81000
// evaluate \_SB.VGEN.ADDR
// with two-tables-dsdt
DefinitionBlock ("", "SSDT", 2, "ROUSE", "TWOTABLE", 1)
{
    External (\BASE, IntObj)
    External (\PLUS, MethodObj)
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Method (ADDR, 0, NotSerialized)
        {
            Local0 = Package (2) { 0, 0 }
            Local0 [0] = PLUS (BASE, 0x1000)
            Return (Local0)
        }
    }
}
