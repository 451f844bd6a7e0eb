package service

import (
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// logFile writes lines to a file, and begins a new one when it is large enough.
type logFile struct {
	LogFile
	fd   int // -1 if not open
	size uint64
	lost uint64 // lines since the last that could be written
}

// follow writes the service's lines to its log file.
func (u *unit) follow() {
	l := &logFile{LogFile: u.spec.LogFile, fd: -1}
	u.journal.follow(func(line []byte) {
		err := l.put(u.m.now(), line)
		if err == nil {
			return
		}
		u.journal.dropped.Add(1)
		if l.lost++; l.lost == 1 {
			u.log("log file " + l.Path + ": " + err.Error() + "; lines are left out there until it can be written")
		}
	})
	l.close()
}

func (l *logFile) close() {
	if l.fd >= 0 {
		unix.Close(l.fd)
		l.fd = -1
	}
}

func (l *logFile) put(now time.Time, line []byte) error {
	if l.size >= l.Size {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	if err := l.open(); err != nil {
		return err
	}
	var b []byte
	if l.lost > 0 {
		b = append(strconv.AppendUint(append(b, '['), l.lost, 10), " lines left out here]\n"...)
	}
	b = now.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z ")
	b = append(append(b, line...), '\n')
	n, err := unix.Write(l.fd, b)
	if err == nil && n < len(b) {
		err = unix.ENOSPC
	}
	if err != nil {
		_ = unix.Ftruncate(l.fd, int64(l.size)) // no half lines
		return err
	}
	l.size += uint64(n)
	l.lost = 0
	return nil
}

func (l *logFile) open() error {
	if l.fd >= 0 {
		return nil
	}
	fd, err := unix.Open(l.Path, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o640)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = unix.EINVAL // a fifo's reader could stop us
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	l.fd, l.size = fd, uint64(st.Size)
	return nil
}

// rotate makes room at Path. If that fails nothing is written any more: a log must not grow without end.
func (l *logFile) rotate() error {
	l.close()
	var err error
	if l.Keep < 0 {
		err = unix.Unlink(l.Path)
	}
	for i := l.Keep; i > 0 && err == nil; i-- {
		from := l.Path
		if i > 1 {
			from += "." + strconv.Itoa(i-1)
		}
		err = unix.Rename(from, l.Path+"."+strconv.Itoa(i))
		if err == unix.ENOENT { // not that many yet
			err = nil
		}
	}
	if err == nil {
		l.size = 0
	}
	return err
}
