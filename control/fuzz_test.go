package control

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// fuzzLine is the longest line while fuzzing: long ones are within the fuzzer's reach then.
const fuzzLine = 32

func readFrames(r io.Reader) (kinds []frameKind, lines []string) {
	f := frames{r: r, max: fuzzLine}
	for {
		kind, line, err := f.next()
		if err != nil {
			return kinds, lines
		}
		kinds, lines = append(kinds, kind), append(lines, string(line))
	}
}

// naiveFrames is the oracle: the whole text at once.
func naiveFrames(data []byte) (kinds []frameKind, lines []string) {
	for len(data) > 0 {
		i := 0
		for i < len(data) && data[i] != '\n' && data[i] != sentinel {
			i++
		}
		if i == len(data) {
			return kinds, lines
		}
		line, mark := data[:i], data[i]
		data = data[i+1:]
		kind, text := frameLine, strings.TrimSpace(string(line))
		switch {
		case mark == sentinel:
			kind, text = frameReset, ""
		case len(line) > fuzzLine:
			kind, text = frameTooLong, ""
		case text == "":
			continue
		}
		kinds, lines = append(kinds, kind), append(lines, text)
	}
	return kinds, lines
}

// FuzzFrames: however a stream is cut into reads, its frames are those of the whole text.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("{\"execute\":\"guest-ping\"}\n\xff{}\n\n  \nhalf"))
	f.Add(append(bytes.Repeat([]byte("x"), fuzzLine+1), "\nafter\n"...))
	f.Add(append(bytes.Repeat([]byte("x"), fuzzLine), "\n\xff\xff\n"...))
	f.Fuzz(func(t *testing.T, data []byte) {
		wantKinds, wantLines := naiveFrames(data)
		for _, r := range []io.Reader{bytes.NewReader(data), iotest.OneByteReader(bytes.NewReader(data)), iotest.DataErrReader(bytes.NewReader(data))} {
			kinds, lines := readFrames(r)
			if !equal(kinds, wantKinds) || !equal(lines, wantLines) {
				t.Fatalf("got %v %.200q\nwant %v %.200q", kinds, lines, wantKinds, wantLines)
			}
		}
	})
}

func equal[T comparable](a, b []T) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// sink collects what a server writes.
type sink struct {
	io.Reader
	bytes.Buffer
}

func (s *sink) Read(p []byte) (int, error)       { return s.Reader.Read(p) }
func (s *sink) Close() error                     { return nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }

// FuzzServer: whatever comes in, what goes out is one JSON object a line with a result or an error, and a
// sync that comes last is answered last.
func FuzzServer(f *testing.F) {
	for _, c := range commands() {
		f.Add([]byte(`{"execute":"` + c.name + `","arguments":{"id":1,"lines":3,"seed":"AA==","service":"x"},"id":2}` + "\n"))
	}
	f.Add([]byte("\xff{\"execute\":\"guest-sync\",\"arguments\":{\"id\":18446744073709551615}}\n"))
	f.Add([]byte(`{"execute":{"execute":"guest-ping"}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		last := "\xff" + `{"execute":"guest-sync-delimited","arguments":{"id":77}}` + "\n"
		out := &sink{Reader: io.MultiReader(bytes.NewReader(data), strings.NewReader(last))}
		s := NewServer(&fakeGuest{}, ServerOptions{})
		s.clock = noClock
		if err := s.serve(context.Background(), out, true); err != io.EOF {
			t.Fatal(err)
		}
		checkAnswers(t, out.Buffer.Bytes())
	})
}

func checkAnswers(t *testing.T, data []byte) {
	if !bytes.HasSuffix(data, []byte("\xff{\"return\":77}\n")) {
		t.Fatalf("the last sync was not answered last: %.300q", data)
	}
	for line := range bytes.Lines(data) {
		line = bytes.TrimPrefix(line, []byte{sentinel})
		var r map[string]json.RawMessage
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("answer %.300q: %v", line, err)
		}
		if (r["return"] == nil) == (r["error"] == nil) {
			t.Fatalf("answer %.300q: want a result or an error", line)
		}
	}
}

// noClock keeps the machine's time.
var noClock = clock{func(time.Time) error { return nil }, func() error { return nil }}

// FuzzSystem: records and tables of the system, however odd, give an answer that can be encoded.
func FuzzSystem(f *testing.F) {
	f.Add([]byte("36 35 254:1 / / rw,noatime - ext4 /dev/vda1 rw\n"), "/sys/devices/pci0000:00/0000:00:04.0/virtio2/block/vda")
	f.Add([]byte("1 1 8:1 / /a\\040b\\777\\ rw - xfs /dev/sda rw\n"), "0000:00:00.z")
	f.Add(make([]byte, 2*utmpSize), "")
	f.Fuzz(func(t *testing.T, data []byte, path string) {
		for _, m := range diskMounts(string(data)) {
			if m.device == "" || strings.HasPrefix(m.device, "0:") {
				t.Fatalf("not a disk: %+v", m)
			}
		}
		if _, err := json.Marshal([]any{users(data), diskOf(path), unescape(path)}); err != nil {
			t.Fatal(err)
		}
	})
}
