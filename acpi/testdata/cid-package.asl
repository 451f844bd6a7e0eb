// _CID as a package from a method, with integers and names in it.
// find \_SB.VGEN  0x2000
// evaluate \_SB.VGEN._CID \_SB.VGEN.ADDR
DefinitionBlock ("", "SSDT", 2, "ROUSE", "CIDPACKA", 1)
{
    Device (\_SB.VGEN)
    {
        
        Name (LAST, "VM_GEN_COUNTER")
        Method (_CID, 0, NotSerialized) { Return (Package () { EisaId ("PNP0C02"), 0x1234, LAST }) }
        Name (ADDR, Package (2) { 0x2000, 0x0 })
    }
}
