// Packages of a size that is computed, longer and shorter than what is given.
// find \_SB.VGEN  0x4000
// evaluate \_SB.VGEN.ADDR \_SB.VGEN.LONG \_SB.VGEN.CUT
DefinitionBlock ("", "SSDT", 2, "ROUSE", "VARPACKA", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Name (TWO, 2)
        Method (LONG, 0) { Local0 = 5 Return (Package (Local0) { 1, 2 }) }
        Method (CUT, 0) { Local0 = 1 Return (Package (Local0) { 1, 2, 3 }) }
        Method (ADDR, 0)
        {
            Local0 = Package (TWO) { 0x4000 }
            Local0 [1] = 0
            Return (Local0)
        }
    }
}
