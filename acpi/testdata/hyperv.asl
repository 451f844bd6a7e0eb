// Hyper-V: a method returns a package of named values, _CID is a package.
// find \_SB.GENC MSFT1002 0x1ffff7f000
// evaluate \_SB.GENC.ADDR \_SB.GENC._CID \_SB.GENC._STA
DefinitionBlock ("", "SSDT", 2, "ROUSE", "HYPERV", 1)
{
    Scope (\_SB)
    {
        OperationRegion (BIOS, SystemMemory, 0xFED3F000, 0x10)
        Field (BIOS, DWordAcc, NoLock, Preserve)
        {
            GCAL, 32,
            GCAH, 32
        }
        Method (INIT, 0, NotSerialized)
        {
            GCAL = 0xFFF7F000
            GCAH = 0x1F
        }
        Device (GENC)
        {
            Name (_HID, "MSFT1002")
            Name (_CID, Package () { "Hyper_V_Gen_Counter_V1", "VM_Gen_Counter" })
            Name (_DDN, "Hyper-V generation counter")
            Method (_INI, 0, NotSerialized) { INIT () }
            Method (_STA, 0, NotSerialized) { Return (0x0F) }
            Method (ADDR, 0, Serialized)
            {
                Name (RETV, Package (2) { 0, 0 })
                RETV [0] = GCAL
                RETV [1] = GCAH
                Return (RETV)
            }
        }
    }
}
