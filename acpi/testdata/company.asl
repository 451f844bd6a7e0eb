// Everything else that a namespace may hold, around the device.
// find \_SB.PCI0.VGEN  0x66000
// evaluate \_SB.PCI0.VGEN.ADDR \_SB.PCI0._CRS \_SB.PCI0.NUM
DefinitionBlock ("", "SSDT", 2, "ROUSE", "COMPANY", 1)
{
    Name (_S5, Package () { 5, 5, 0, 0 })
    Scope (\_PR) { Processor (CPU0, 0, 0xB0, 6) { Name (X, 1) } }
    PowerResource (PWR, 0, 0) { Method (_STA, 0) { Return (1) } Method (_ON, 0) {} Method (_OFF, 0) {} }
    ThermalZone (\_TZ.THRM) { Method (_TMP, 0) { Return (3000) } }
    Mutex (MTX, 3)
    Event (EVT)
    OperationRegion (IDXR, SystemIO, 0x70, 2)
    Field (IDXR, ByteAcc, NoLock, Preserve) { IDX, 8, DAT, 8 }
    IndexField (IDX, DAT, ByteAcc, NoLock, Preserve) { Offset (4), SEC, 8, MIN, 8 }
    BankField (IDXR, IDX, 1, ByteAcc, NoLock, Preserve) { BNK, 8 }
    OperationRegion (PCIR, PCI_Config, 0, 0x100)
    DataTableRegion (TBL, "DSDT", "", "")
    Scope (\_SB)
    {
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A03"))
            Name (_CRS, ResourceTemplate () { IO (Decode16, 0xCF8, 0xCF8, 1, 8) DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite, 0, 0xC0000000, 0xFEBFFFFF, 0, 0x3EC00000) })
            Method (NUM, 0) { Return (SizeOf (_CRS)) }
            Method (BUSY, 0)
            {
                Acquire (MTX, 0x1000)
                Reset (EVT)
                Signal (EVT)
                Stall (1)
                Sleep (1)
                Release (MTX)
                Notify (VGEN, 0x80)
                Debug = "busy"
                Noop
            }
            Device (VGEN)
            {
                Name (_CID, "VM_Gen_Counter")
                Method (ADDR, 0) { BUSY () Local0 = Package (2) { 0x66000, 0 } Return (Local0) }
            }
        }
    }
}
