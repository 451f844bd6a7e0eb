package control

import (
	"sync"

	"rouse/internal/fmt"
)

// maxHandles bounds what a host can leave open in the guest, of each kind.
const maxHandles = 64

// handles is a bounded table of things that a host refers to by number.
type handles[T any] struct {
	mu   sync.Mutex
	next int64
	open map[int64]T
}

// add takes v under a new number, or under its own if it has one (not 0).
func (h *handles[T]) add(number int64, v T) (int64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.open) >= maxHandles {
		return 0, fmt.Errorf("%w: %d are open already", ErrRefused, maxHandles)
	}
	if h.open == nil {
		h.open = map[int64]T{}
	}
	if number == 0 {
		h.next++
		number = h.next
	}
	h.open[number] = v
	return number, nil
}

func (h *handles[T]) get(number int64) (T, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, ok := h.open[number]
	if !ok {
		return v, fmt.Errorf("there is no handle %d", number)
	}
	return v, nil
}

func (h *handles[T]) remove(number int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.open, number)
}
