// QEMU's table before firmware patched it: not present.
// find error \_SB.VGEN is not present (\_SB.VGEN._STA is 0x0)
// evaluate \_SB.VGEN._STA \_SB.VGEN.ADDR
DefinitionBlock ("", "SSDT", 1, "ROUSE", "STAZERO", 1)
{
    Name (VGIA, 0)
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Method (_STA, 0, NotSerialized)
        {
            Local0 = 0x0F
            If (VGIA == 0) { Local0 = 0 }
            Return (Local0)
        }
        Method (ADDR, 0, NotSerialized)
        {
            Local0 = Package (2) {}
            Local0 [0] = (VGIA + 0x28)
            Local0 [1] = 0
            Return (Local0)
        }
    }
}
