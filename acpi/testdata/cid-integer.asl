// _CID as an integer, _DDN as a buffer: no match, no mistake.
// find error no VM generation id device
// evaluate \_SB.VGEN._CID \_SB.VGEN._DDN
DefinitionBlock ("", "SSDT", 2, "ROUSE", "CIDINTEG", 1)
{
    Device (\_SB.VGEN)
    {
        Name (_CID, EisaId ("PNP0C02"))
        Name (_DDN, Buffer () { "VM_Gen_Counter" })
        Name (ADDR, Package (2) { 0x3000, 0x0 })
    }
}
