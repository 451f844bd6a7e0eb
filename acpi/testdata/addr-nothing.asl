// ADDR that returns nothing.
// find error wrong type of operand: nothing
// evaluate \_SB.VGEN.ADDR
DefinitionBlock ("", "SSDT", 2, "ROUSE", "ADDRNOTH", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Method (ADDR, 0) { Noop }
    }
}
