package acpi

import "rouse/internal/fmt"

// value is what a term yields or a name holds:
//
//	nil          nothing (an element or a local that was never set)
//	uint64       an integer
//	*blob        a string or a buffer
//	*list        a package
//	*reference   what RefOf and Index yield
//	*namePathIn  a name in a package, looked up when it is read
//	*node        an object that is no data: a device, a mutex, an event
//	*method, *region, *field, *bufferField, *alias, kind: only as the value of a node
type value any

// blob is a string (without its final NUL) or a buffer. Several holders may share one: a method that
// is handed a buffer changes the caller's.
type blob struct {
	data []byte
	text bool
}

// list is a package.
type list struct{ elements []value }

// namePathIn is a name with the scope it was written in.
type namePathIn struct {
	path  namePath
	scope *node
}

// kind is the value of a node that has none, and the answer of the ObjectType operator
// (ACPI 6.5, 19.6.96).
type kind uint8

const (
	kindNone kind = iota
	kindInteger
	kindString
	kindBuffer
	kindPackage
	kindField
	kindDevice
	kindEvent
	kindMethod
	kindMutex
	kindRegion
	kindPower
	kindProcessor
	kindThermal
	kindBufferField
	_
	kindDebug
	kindScope = 255 // a predefined name that only holds others
)

// valueSize is the memory of a value in a package, blobSize that of a blob without its bytes,
// refSize that of a reference.
const (
	valueSize = 16
	blobSize  = 48
	refSize   = 96
)

var (
	errType          error = fault("wrong type of operand")
	errUninitialized error = fault("never set")
	errIndex         error = fault("index out of range")
)

// integer cuts v to the width of integers in this namespace.
func (m *machine) integer(v uint64) uint64 {
	if m.narrow {
		return uint64(uint32(v))
	}
	return v
}

// width is the size of an integer in bits.
func (m *machine) width() int {
	if m.narrow {
		return 32
	}
	return 64
}

// truth is how AML says true: all bits set.
func (m *machine) truth(b bool) uint64 {
	if b {
		return m.integer(^uint64(0))
	}
	return 0
}

func (m *machine) newBlob(data []byte, text bool) (*blob, error) {
	if err := m.alloc(blobSize + len(data)); err != nil {
		return nil, err
	}
	return &blob{data: append([]byte(nil), data...), text: text}, nil
}

// zeros makes a buffer of n bytes.
func (m *machine) zeros(n uint64) (*blob, error) {
	if n > heapBytes<<4 {
		return nil, errHeap
	}
	if err := m.alloc(blobSize + int(n)); err != nil {
		return nil, err
	}
	return &blob{data: make([]byte, n)}, nil
}

func (m *machine) newList(n int) (*list, error) {
	if err := m.alloc(valueSize * (n + 2)); err != nil {
		return nil, err
	}
	return &list{elements: make([]value, n)}, nil
}

// copyValue copies strings, buffers and packages all the way down: a store never makes two names for
// one object. References stay what they are.
func (m *machine) copyValue(v value) (value, error) {
	if err := m.enter(); err != nil {
		return nil, err
	}
	defer m.leave()
	switch v := v.(type) {
	case *blob:
		return m.newBlob(v.data, v.text)
	case *list:
		c, err := m.newList(len(v.elements))
		for i := 0; err == nil && i < len(v.elements); i++ {
			c.elements[i], err = m.copyValue(v.elements[i])
		}
		return c, err
	}
	return v, nil
}

// kindOf classifies v for error messages and ObjectType.
func kindOf(v value) kind {
	switch v := v.(type) {
	case uint64:
		return kindInteger
	case *blob:
		if v.text {
			return kindString
		}
		return kindBuffer
	case *list:
		return kindPackage
	case *field:
		return kindField
	case *bufferField:
		return kindBufferField
	case *method:
		return kindMethod
	case *region:
		return kindRegion
	case *node:
		return kindOf(v.value)
	case kind:
		return v
	}
	return kindNone
}

var kindNames = [...]string{"nothing", "integer", "string", "buffer", "package", "field", "device", "event",
	"method", "mutex", "region", "power resource", "processor", "thermal zone", "buffer field"}

func (k kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "object"
}

func typeError(v value, want string) error {
	if _, ok := v.(*reference); ok {
		return fmt.Errorf("%w: reference, not %s", errType, want)
	}
	return fmt.Errorf("%w: %s, not %s", errType, kindOf(v), want)
}
