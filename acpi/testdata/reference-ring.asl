// Arguments that refer to each other in a ring.
// find error evaluation limit reached
DefinitionBlock ("", "SSDT", 2, "ROUSE", "REFERENC", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Method (RING, 2, NotSerialized)
        {
            Arg0 = RefOf (Arg1)
            Arg1 = RefOf (Arg0)
            Arg0 = 5
            Return (Arg0)
        }
        Method (LONG, 1, NotSerialized)
        {
            Return (LONG (RefOf (Arg0)))
        }
        Method (ADDR, 0, NotSerialized)
        {
            RING (RefOf (Local0), RefOf (Local1))
            Return (LONG (RefOf (Local0)))
        }
    }
}
