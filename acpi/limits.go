package acpi

// Limits of one call of FindVMGenID. A step is one AML term, one scope of a name search, or 64 bytes
// touched; it costs 10 to 50 ns. QEMU 7.2's q35 machine takes 3 500 steps and 100 KiB to load and 30
// steps to evaluate (TestTables). The constants keep hostile input of up to 16 KiB within 1 MiB
// (TestBounds, as the Go runtime counts) and within 1 ms on the machine of 2026-11 (BenchmarkHostile).
const (
	// loadSteps and loadStepsPerByte bound building the namespace. Code outside methods cannot take
	// more terms than bytes unless it loops or calls.
	loadSteps        = 8 << 10
	loadStepsPerByte = 1
	// evalSteps bounds all evaluations after loading together, callSteps each of them, so that one
	// device's endless method does not hide the next device.
	evalSteps = 8 << 10
	callSteps = 4 << 10
	// heapBytes and heapPerByte bound everything allocated while interpreting, counted when allocated
	// and never given back.
	heapBytes   = 512 << 10
	heapPerByte = 16
	// maxDepth bounds nesting of terms, blocks and method calls. Compilers turn a switch of n cases
	// into n nested else blocks; ACPICA stops method calls at 255.
	maxDepth = 200
	// maxNotes bounds the errors remembered while loading.
	maxNotes = 4
)

// ErrLimit is wrapped by the error of an evaluation that took too many steps, too much memory or too
// deep a nesting.
var ErrLimit error = fault("evaluation limit reached")

var (
	errSteps error = limit("steps")
	errHeap  error = limit("memory")
	errDepth error = limit("nesting")
)

// limit is an ErrLimit that says which.
type limit string

func (l limit) Error() string { return ErrLimit.Error() + ": " + string(l) }
func (limit) Unwrap() error   { return ErrLimit }

// fault is an error that needs no work before main runs.
type fault string

func (f fault) Error() string { return string(f) }

// budget counts down. The totals are kept for tests.
type budget struct {
	steps, heap, depth   int
	usedSteps, usedBytes int
}

func (b *budget) step(n int) error {
	b.steps -= n
	b.usedSteps += n
	if b.steps < 0 {
		return errSteps
	}
	return nil
}

// alloc must be called before the memory is taken.
func (b *budget) alloc(n int) error {
	if n < 0 || n > b.heap {
		return errHeap
	}
	b.heap -= n
	b.usedBytes += n
	return b.step(n / 64)
}

func (b *budget) enter() error {
	if b.depth >= maxDepth {
		return errDepth
	}
	b.depth++
	return nil
}

func (b *budget) leave() { b.depth-- }

// wrapped is an error with what was done, and to what. It is fmt.Errorf("%s: %w") in a third of the code.
type wrapped struct {
	what string
	err  error
}

func (w *wrapped) Error() string { return w.what + ": " + w.err.Error() }
func (w *wrapped) Unwrap() error { return w.err }

func wrap(what string, err error) error { return &wrapped{what, err} }
