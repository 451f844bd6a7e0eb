// Switch, for which compilers make a loop and names.
// find \_SB.VGEN  0xc0de0
// evaluate \_SB.VGEN.ADDR \W3 \W9 \TXT
DefinitionBlock ("", "SSDT", 2, "ROUSE", "SWITCH", 1)
{
    Method (WHAT, 1, Serialized)
    {
        Switch (ToInteger (Arg0))
        {
            Case (1) { Return (0x11) }
            Case (Package () { 2, 3 }) { Return (0x23) }
            Case (4) { Local0 = 0x44 }
            Default { Return (0xDD) }
        }
        Return (Local0)
    }
    Method (W3, 0) { Return (WHAT (3)) }
    Method (W9, 0) { Return (WHAT (9)) }
    Method (TXT, 0, Serialized)
    {
        Local1 = "two"
        Switch (ToString (Local1)) { Case ("one") { Return (1) } Case ("two") { Return (2) } }
        Return (3)
    }
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Method (ADDR, 0, NotSerialized)
        {
            Local0 = Package (2) { 0, 0 }
            If (WHAT (4) == 0x44) { Local0 [0] = 0xC0DE0 }
            Return (Local0)
        }
    }
}
