// The first device that matches is not there; the second one is.
// find \_SB.VGN2  0x7000
// evaluate \_SB.VGN1._STA \_SB.VGN2.ADDR
DefinitionBlock ("", "SSDT", 2, "ROUSE", "SECOND", 1)
{
    Device (\_SB.VGN1)
    {
        Name (_CID, "VM_Gen_Counter")
        Name (_STA, 0)
        Name (ADDR, Package (2) { 0x6000, 0x0 })
    }
    Device (\_SB.VGN2)
    {
        Name (_CID, "VM_Gen_Counter")
        Name (ADDR, Package (2) { 0x7000, 0x0 })
    }
}
