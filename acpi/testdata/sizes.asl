// Integers of all sizes, EISA ids, strings, nested packages.
// find \_SB.VGEN PNP0A08 0x1234567890abcdef
// evaluate \ALL \_SB.VGEN._HID \_SB.VGEN.ADDR \NEST
DefinitionBlock ("", "SSDT", 2, "ROUSE", "SIZES", 1)
{
    Name (ALL, Package () { Zero, One, Ones, 2, 0xFF, 0x100, 0xFFFF, 0x10000, 0xFFFFFFFF, 0x100000000, 0xFFFFFFFFFFFFFFFF, "", "text", Buffer (3) {}, Buffer () { "s" }, Unicode ("ab"), ToUUID ("00112233-4455-6677-8899-aabbccddeeff") })
    Name (NEST, Package () { Package () { Package () { Package () { 1 }, 2 }, 3 }, 4, Package () {} })
    Device (\_SB.VGEN)
    {
        Name (_CID, "VM_Gen_Counter")
        Name (_HID, EisaId ("PNP0A08"))
        Name (ADDR, Package (2) { 0x90ABCDEF, 0x12345678 })
    }
}
