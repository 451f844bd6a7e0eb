// _STA of a type that is no integer.
// find error wrong type
DefinitionBlock ("", "SSDT", 2, "ROUSE", "STASTRIN", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Name (_STA, Package () { 1 })
        Name (ADDR, Package (2) { 0x3000, 0x0 })
    }
}
