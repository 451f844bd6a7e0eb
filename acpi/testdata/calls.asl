// Calls within calls, seven arguments, recursion, methods as operands.
// find \_SB.VGEN  0x152
// evaluate \SEVN \FIB6 \_SB.VGEN.ADDR \SIDE
DefinitionBlock ("", "SSDT", 2, "ROUSE", "CALLS", 1)
{
    Method (SEV, 7, NotSerialized) { Return (((((((Arg0 * 2) + Arg1) * 2 + Arg2) * 2 + Arg3) * 2 + Arg4) * 2 + Arg5) * 2 + Arg6) }
    Method (SEVN, 0) { Return (SEV (1, 0, SEV (0, 0, 0, 0, 0, 0, 1), 0, 1, 0, 0)) }
    Method (FIB, 1, NotSerialized)
    {
        If (Arg0 < 2) { Return (Arg0) }
        Return (FIB (Arg0 - 1) + FIB (Arg0 - 2))
    }
    Method (FIB6, 0) { Return (FIB (6)) }
    Method (CHNG, 1) { Arg0 [0] = 0x99 Arg0 = 5 }
    Method (SIDE, 0) { Local0 = Buffer () { 1, 2 } Local1 = 3 CHNG (Local0) Return (Local0) }
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Method (ADDR, 0, NotSerialized)
        {
            Local0 = Package (2) { 0, 0 }
            Local0 [0] = (((FIB (10) << 2) + SEVN ()) + 0x22)
            Return (Local0)
        }
    }
}
