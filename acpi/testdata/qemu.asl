// QEMU, x86: a method computes the address from a name that firmware patches.
// find \_SB.VGEN QEMUVGID 0xffff028
// evaluate \_SB.VGEN.ADDR \_SB.VGEN._STA \_SB.VGEN._CID \_SB.VGEN._DDN \_SB.VGEN._HID
DefinitionBlock ("", "SSDT", 1, "ROUSE", "QEMU", 1)
{
    Name (VGIA, 0x0FFFF000)
    Scope (\_SB)
    {
        Device (VGEN)
        {
            Name (_HID, "QEMUVGID")
            Name (_CID, "VM_Gen_Counter")
            Name (_DDN, "VM_Gen_Counter")
            Method (_STA, 0, NotSerialized)
            {
                Local0 = 0x0F
                If (VGIA == 0)
                {
                    Local0 = 0
                }
                Return (Local0)
            }
            Method (ADDR, 0, NotSerialized)
            {
                Local0 = Package (2) {}
                Local0 [0] = VGIA + 0x28
                Local0 [1] = 0
                Return (Local0)
            }
        }
    }
    Method (\_GPE._E05, 0, NotSerialized)
    {
        Notify (\_SB.VGEN, 0x80)
    }
}
