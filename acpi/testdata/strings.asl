// Strings and what they convert to.
// find \_SB.VGEN  0xabc000
// evaluate \S1 \S2 \S3 \S4 \S5 \S6
// evaluate \S7 \S8 \S9 \SA \SB \SC
// evaluate \SD \SE \SF \SG \SH \SI
// evaluate \SJ \SK \SL \SM \SN \SO
// evaluate \SP
DefinitionBlock ("", "SSDT", 2, "ROUSE", "STRINGS", 1)
{
    Name (ST, "12xyz")
    Name (HX, "0x1f")
    Method (S1, 0) { Return (ST + 0) }
    Method (S2, 0) { Return (HX + 0) }
    Method (S3, 0) { Return (ToInteger (HX)) }
    Method (S4, 0) { Return (ToInteger (ST)) }
    Method (S5, 0) { Local0 = "zz" Return (ToInteger (Local0)) }
    Method (S6, 0) { Local0 = "zz" Return (Local0 + 1) }
    Method (S7, 0) { Local0 = "abc" Return (Local0 < "abd") }
    Method (S8, 0) { Local0 = "abc" Return (Local0 > "ab") }
    Method (S9, 0) { Local0 = "18" Return (0x18 == Local0) }
    Method (SA, 0) { Local0 = 0x18 Return ("18" == Local0) }
    Method (SB, 0) { Return (Concatenate (ST, 0xAB)) }
    Method (SC, 0) { Local0 = 1 Return (Concatenate (Local0, "ff")) }
    Method (SD, 0) { ST = 0xAB Return (ST) }
    Method (SE, 0) { ST = Buffer () { 1, 2 } Return (ST) }
    Method (SF, 0) { ST = "a longer string than before" Return (ST) }
    Method (SG, 0) { Local0 = "" Return (Local0 + 0) }
    Method (SH, 0) { Return (ToBuffer (HX)) }
    Method (SI, 0) { Local0 = "  42" Return (ToInteger (Local0)) }
    Method (SJ, 0) { Return (Mid ("hello", 1, 3)) }
    Method (SK, 0) { Local0 = 255 Return (ToDecimalString (Local0)) }
    Method (SL, 0) { Return (Concatenate ("dev ", \_SB)) }
    Method (SM, 0) { Local0 = "0" Return (Local0 == 0) }
    Method (SN, 0) { ST = Package () { 1 } Return (ST) }
    Method (SO, 0) { If ("0") { Return (1) } Return (2) }
    Method (SP, 0) { Local0 = "FFFFFFFFFFFFFFFFFF" Return (Local0 + 0) }
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Method (ADDR, 0, NotSerialized)
        {
            Local0 = Package (2) { 0, 0 }
            Local1 = "ABC000"
            Local0 [0] = (Local1 + 0)
            Return (Local0)
        }
    }
}
