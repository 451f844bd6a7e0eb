// VMware-like: one value of 64 bits in memory, cut in halves.
// find \_SB.VMGC VMW0099 0x15a5a5a5a
// evaluate \_SB.VMGC.ADDR \_SB.VMGC._STA
// fill 0x5A
DefinitionBlock ("", "SSDT", 2, "ROUSE", "VMWARELI", 1)
{
    Scope (\_SB)
    {
        Device (VMGC)
        {
            Name (_HID, "VMW0099")
            Name (_CID, "VM_Gen_Counter")
            OperationRegion (VMGR, SystemMemory, 0xE0000, 0x20)
            Field (VMGR, QWordAcc, NoLock, WriteAsZeros) { GPTR, 32, GHI, 8, , 24, FLAG, 1 }
            Mutex (LCK0, 0)
            Method (_STA, 0, NotSerialized) { Return (0x0B) }
            Method (HIGH, 1, NotSerialized) { Return (Arg0 >> 32) }
            Method (ADDR, 0, Serialized)
            {
                Acquire (LCK0, 0xFFFF)
                Local0 = GPTR
                Local1 = (Local0 | 0x100000000)
                Release (LCK0)
                Local2 = Package (2) { 0, 0 }
                Local2 [0] = (Local1 & 0xFFFFFFFF)
                Local2 [1] = HIGH (Local1)
                Return (Local2)
            }
        }
    }
}
