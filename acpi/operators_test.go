package acpi

import (
	"errors"
	"testing"
)

// Every row can be found, and has a function: what perform does not know it would refuse at run time.
func TestOperators(t *testing.T) {
	refused := map[string]bool{"ConcatenateResTemplate": true, "LoadTable": true, "Load": true, "Unload": true, "Debug": true}
	for i, op := range operators {
		if i > 0 && op.code <= operators[i-1].code {
			t.Errorf("%s is not in order", op.name)
		}
		if found, ok := lookupOperator(op.code); !ok || found != op {
			t.Errorf("%s is not found", op.name)
		}
		if got := unknown(op.code); got != refused[op.name] {
			t.Errorf("%s: not supported is %v", op.name, got)
		}
	}
	for _, code := range []uint16{0x02, 0x5b, 0xfe, 0x100, 0x5b00, 0x5b34, 0x5bff, 0xffff} {
		if op, ok := lookupOperator(code); ok {
			t.Errorf("%#x is %s", code, op.name)
		}
	}
}

// unknown tells whether perform has no function for a code. One that it has may miss its operands.
func unknown(code uint16) bool {
	defer func() { _ = recover() }()
	m := newMachine(nil, nil)
	_, err := m.perform(code, &frame{scope: m.root}, nil)
	return errors.Is(err, errUnsupported)
}
