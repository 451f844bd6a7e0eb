package rootfs

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rouse/internal/fmt"
)

// hostClocks are the PTP clocks that show the host's time: drivers/ptp/ptp_kvm_common.c, ptp_vmclock.c and
// drivers/hv/hv_util.c (v6.13). A network card's may show anything.
var hostClocks = []string{"KVM virtual PTP", "vmclock", "hyperv"}

// HostClock is a device that shows the host's idea of the time.
type HostClock struct {
	Path  string
	Slack time.Duration // how far off it may be
	read  func(fd int) (time.Time, error)
}

// FindHostClock finds the best one that works; where none does, it is the one to say why not.
func FindHostClock() HostClock {
	names, _ := filepath.Glob("/sys/class/ptp/*/clock_name")
	for _, name := range names {
		b, _ := os.ReadFile(name)
		c := HostClock{"/dev/" + filepath.Base(filepath.Dir(name)), time.Millisecond, ptpTime}
		if !isHostClock(string(b)) {
			continue
		}
		if _, err := c.Now(); err == nil {
			return c
		}
	}
	return HostClock{"/dev/rtc0", 2 * time.Second, rtcTime}
}

func isHostClock(name string) bool {
	name = strings.TrimSpace(name)
	for _, known := range hostClocks {
		if name == known {
			return true
		}
	}
	return false
}

// Now opens the device for the moment: a real-time clock can be open only once.
func (c HostClock) Now() (time.Time, error) {
	fd, err := unix.Open(c.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return time.Time{}, fmt.Errorf("open %s: %w", c.Path, err)
	}
	defer unix.Close(fd)
	t, err := c.read(fd)
	if err != nil {
		return time.Time{}, fmt.Errorf("read %s: %w", c.Path, err)
	}
	return t, nil
}

func ptpTime(fd int) (time.Time, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.FdToClockID(fd), &ts)
	return time.Unix(ts.Unix()), err
}

// rtcTime is in the middle of the second that the clock shows. VMMs have it in UTC.
func rtcTime(fd int) (time.Time, error) {
	r, err := unix.IoctlGetRTCTime(fd)
	if err != nil {
		return time.Time{}, err
	}
	return time.Date(int(r.Year)+1900, time.Month(r.Mon+1), int(r.Mday), int(r.Hour), int(r.Min), int(r.Sec), 5e8, time.UTC), nil
}

// StepClock sets the clock to the host's time if it is off by more than that is sure, and says what it did. Whoever waits for an
// hour of the day is told by the kernel (timerfd's TFD_TIMER_CANCEL_ON_SET).
func StepClock(to time.Time, source string, slack time.Duration) (string, error) {
	by := time.Until(to.Round(0)) // by the wall clock, not the monotonic one
	if by.Abs() <= slack {
		return fmt.Sprintf("kept: within %v of %s", slack, source), nil
	}
	ts := unix.NsecToTimespec(to.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return "", fmt.Errorf("set the clock: %w", err)
	}
	return fmt.Sprintf("stepped by %v to %s", by.Round(time.Millisecond), source), nil
}
