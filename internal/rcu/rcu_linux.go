// Package rcu shortens the kernel's grace periods where this program waits for many in a row.
//
// A grace period ends when every processor has been seen outside of what it waits for, which on an idle machine takes some
// ticks of its clock: 10 to 40 ms. Expedited, the processors are asked at once, by an interrupt to each: 0.1 ms.
package rcu

import (
	"os"
	"sync"
)

// setting is kernel/ksysfs.c's rcu_expedited (v6.12); CONFIG_TINY_RCU has none, and needs none.
const setting = "/sys/kernel/rcu_expedited"

// expediting counts who is at it: the last one puts the kernel's setting back. The mutex is held only while the setting
// is changed.
var expediting struct {
	sync.Mutex
	users  int
	before []byte
}

// Expedite has all grace periods of the machine expedited until restore is called, once. It changes a setting for speed only,
// so what fails here fails in silence.
func Expedite() (restore func()) {
	e := &expediting
	e.Lock()
	defer e.Unlock()
	if e.users++; e.users == 1 {
		if before, err := os.ReadFile(setting); err == nil && os.WriteFile(setting, []byte("1"), 0) == nil {
			e.before = before
		}
	}
	return func() {
		e.Lock()
		defer e.Unlock()
		if e.users--; e.users == 0 && e.before != nil {
			_ = os.WriteFile(setting, e.before, 0)
			e.before = nil
		}
	}
}
