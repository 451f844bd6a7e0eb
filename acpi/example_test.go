package acpi_test

import (
	"errors"
	"fmt"
	"os"

	"rouse/acpi"
)

// On x86 the device stands in the ACPI tables, on some arm64 machines only in the device tree.
func Example() {
	tables, err := acpi.ReadTables(os.DirFS("/sys/firmware/acpi/tables"))
	if err != nil {
		fmt.Println(err)
		return
	}
	d, err := acpi.FindVMGenID(tables, nil)
	if errors.Is(err, acpi.ErrNotFound) {
		d, err = acpi.FindVMGenIDTree(os.DirFS("/sys/firmware/devicetree/base"))
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%#x (%s in %s)\n", d.Address, d.Path, d.Table)
}
