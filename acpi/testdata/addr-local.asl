// A local that was never set, and one that was set in another call.
// find error Local1: never set
// evaluate \_SB.VGEN.ADDR
DefinitionBlock ("", "SSDT", 2, "ROUSE", "ADDRLOCA", 1)
{
    Method (SETS, 0) { Local1 = Package (2) { 1, 2 } Return (Zero) }
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Method (ADDR, 0, NotSerialized)
        {
            SETS ()
            If (SETS ()) { Local1 = Package (2) { 1, 2 } }
            Return (Local1)
        }
    }
}
