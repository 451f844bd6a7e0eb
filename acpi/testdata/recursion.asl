// A method that calls itself for ever.
// find error evaluation limit reached: nesting
DefinitionBlock ("", "SSDT", 2, "ROUSE", "RECURSIO", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Method (DOWN, 1, NotSerialized) { Return (DOWN (Arg0 + 1)) }
        Method (ADDR, 0, NotSerialized) { Return (DOWN (0)) }
    }
}
