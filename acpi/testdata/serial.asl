// Fields of other kinds of buses, with connections, before the device.
// find \_SB.VGEN 0x8010
// evaluate \_SB.VGEN.ADDR
DefinitionBlock ("", "SSDT", 2, "ROUSE", "SERIAL", 1)
{
    Device (\_SB.I2C0) { Name (_HID, "ABC0001") }
    Device (\_SB.SENS)
    {
        OperationRegion (TOP1, GenericSerialBus, 0x00, 0x100)
        Name (SDB0, ResourceTemplate () { I2cSerialBusV2 (0x4C, ControllerInitiated, 0x00061A80, AddressingMode7Bit, "\\_SB.I2C0", 0, ResourceConsumer, , Exclusive, ) })
        Field (TOP1, BufferAcc, NoLock, Preserve)
        {
            Connection (SDB0),
            AccessAs (BufferAcc, AttribWord),
            FLD0, 8,
            Connection (I2cSerialBusV2 (0x5A, ControllerInitiated, 0x00061A80, AddressingMode7Bit, "\\_SB.I2C0", 0, ResourceConsumer, , Exclusive, )),
            AccessAs (BufferAcc, AttribBytes (16)),
            FLD1, 8
        }
    }
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Name (ADDR, Package (2) { 0x8010, 0x0 })
    }
}
