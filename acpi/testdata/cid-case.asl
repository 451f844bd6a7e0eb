// The letters of _CID may be of any case.
// find \_SB.VGEN  0x1000
// evaluate \_SB.VGEN._CID
DefinitionBlock ("", "SSDT", 2, "ROUSE", "CIDCASE", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_CID, "vm_gEN_cOUNTER")
        Name (ADDR, Package (2) { 0x1000, 0x0 })
    }
}
