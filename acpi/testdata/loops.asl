// While with Break and Continue, nested.
// find \_SB.VGEN  0x7ff0
// evaluate \_SB.VGEN.ADDR \_SB.VGEN.SUM \_SB.VGEN.GRID
DefinitionBlock ("", "SSDT", 2, "ROUSE", "LOOPS", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Method (SUM, 0, NotSerialized)
        {
            Local0 = 0
            Local1 = 0
            While (One)
            {
                Local0++
                If (Local0 > 100) { Break }
                If (Local0 & 1) { Continue }
                Local1 += Local0
            }
            Return (Local1)
        }
        Method (GRID, 0, NotSerialized)
        {
            Local2 = 0
            Local0 = 0
            While (Local0 < 5)
            {
                Local1 = 0
                While (Local1 < 5)
                {
                    If (Local1 == Local0) { Break }
                    Local1++
                    Local2++
                }
                Local0++
                If (Local0 == 4) { Return (Local2) }
            }
            Return (0xBAD)
        }
        Method (ADDR, 0, NotSerialized)
        {
            Local0 = 0
            Local1 = 16
            While (Local0 < 11) { Local1 = (Local1 << 1) Local0++ }
            Local2 = Package (2) { 0, 0 }
            Local2 [0] = (Local1 - 16)
            Return (Local2)
        }
    }
}
