package capture

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"
)

// file builds a pcap file of frames.
func file(frames ...Frame) []byte {
	data := binary.NativeEndian.AppendUint32(nil, magicMicro)
	data = append(data, make([]byte, fileHeader-4)...)
	for _, f := range frames {
		data = binary.NativeEndian.AppendUint32(data, uint32(f.Time/time.Second))
		data = binary.NativeEndian.AppendUint32(data, uint32(f.Time%time.Second/time.Microsecond))
		data = binary.NativeEndian.AppendUint32(data, uint32(len(f.Data)))
		data = binary.NativeEndian.AppendUint32(data, uint32(len(f.Data)))
		data = append(data, f.Data...)
	}
	return data
}

func frame(at time.Duration, etherType uint16, own bool) Frame {
	d := make([]byte, 60)
	if own {
		copy(d[6:], GuestMAC)
	}
	binary.BigEndian.PutUint16(d[12:], etherType)
	return Frame{at, d}
}

func request(at time.Duration) Frame {
	f := frame(at, typeARP, true)
	copy(f.Data[38:], []byte{10, 0, 2, 2})
	return f
}

func TestBeforeRelease(t *testing.T) {
	const ms = time.Millisecond
	announcement := frame(100*ms, typeARP, true) // sender and target are both 0.0.0.0
	tests := map[string]struct {
		frames []Frame
		want   int
		err    error
	}{
		"nothing":            {[]Frame{announcement}, 0, nil},
		"early":              {[]Frame{frame(80*ms, typeIPv4, true), announcement}, 1, nil},
		"early v6":           {[]Frame{frame(80*ms, typeIPv6, true), announcement}, 1, nil},
		"early ARP":          {[]Frame{request(80 * ms), announcement}, 1, nil},
		"to the guest":       {[]Frame{frame(80*ms, typeIPv4, false), announcement}, 0, nil},
		"open, not yet told": {[]Frame{frame(95*ms, typeIPv4, true), announcement}, 0, nil},
		"after":              {[]Frame{announcement, frame(120*ms, typeIPv4, true)}, 0, nil},
		"no announcement":    {[]Frame{frame(80*ms, typeIPv4, true), request(90 * ms)}, 0, ErrNoRelease},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			frames, err := Parse(file(tt.frames...))
			if err != nil || len(frames) != len(tt.frames) {
				t.Fatalf("%d frames, %v", len(frames), err)
			}
			early, err := BeforeRelease(frames, GuestMAC, 10*ms)
			if len(early) != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%d early, error %v; want %d, %v", len(early), err, tt.want, tt.err)
			}
		})
	}
}

func TestParseCutOff(t *testing.T) {
	data := file(frame(0, typeIPv4, true), frame(1, typeIPv4, true))
	frames, err := Parse(data[:len(data)-7])
	if err != nil || len(frames) != 1 {
		t.Errorf("%d frames, %v; want the whole one", len(frames), err)
	}
	if _, err := Parse([]byte("no capture at all, just some text")); err == nil {
		t.Error("text was taken for a capture")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(file(frame(0, typeIPv4, true)))
	f.Fuzz(func(t *testing.T, data []byte) {
		frames, err := Parse(data)
		if err == nil {
			_, _ = BeforeRelease(frames, GuestMAC, 0)
		}
	})
}
