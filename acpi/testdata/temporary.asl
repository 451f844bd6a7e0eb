// Names that live as long as a call, and a serialized method called twice.
// find \_SB.VGEN  0x3030
// evaluate \_SB.VGEN.ADDR \GONE \TWIC \SELF
DefinitionBlock ("", "SSDT", 2, "ROUSE", "TEMPORAR", 1)
{
    Method (TMP, 1, Serialized)
    {
        Name (T, 0x1000)
        Name (\OUT, 0x10)
        T += Arg0
        Return (T + \OUT)
    }
    Method (GONE, 0) { TMP (1) Return (CondRefOf (\OUT)) }
    Method (TWIC, 0) { Return (TMP (1) + TMP (2)) }
    Method (REC, 1) { Name (Q, 1) If (Arg0 == 0) { Return (1) } Return (REC (Arg0 - 1)) }
    Method (SELF, 0) { Return (REC (1)) }
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Method (ADDR, 0, NotSerialized)
        {
            Local0 = Package (2) { 0, 0 }
            Local0 [0] = (TWIC () + TMP (Ones - 2))
            Return (Local0)
        }
    }
}
