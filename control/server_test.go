package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fakeGuest answers at once unless a function says otherwise.
type fakeGuest struct {
	frozen   atomic.Bool
	quiesce  func(ctx context.Context, o QuiesceOptions) (json.RawMessage, int, error)
	release  func(ctx context.Context) (json.RawMessage, error)
	resumed  func(r Resume) error
	services func() any
	shutdown func(mode string) error
	reports  []json.RawMessage
	since    func(ctx context.Context, after uint64, most int) ([]LogLine, uint64, error)
}

func (g *fakeGuest) Service(_ context.Context, name, action, signal string) (any, error) {
	return name + " " + action + " " + signal, nil
}

func (g *fakeGuest) LogSince(ctx context.Context, _ string, after uint64, most int) ([]LogLine, uint64, error) {
	if g.since == nil {
		<-ctx.Done()
		return nil, after, ctx.Err()
	}
	return g.since(ctx, after, most)
}

func (g *fakeGuest) Quiesce(ctx context.Context, o QuiesceOptions) (json.RawMessage, int, error) {
	if g.quiesce != nil {
		return g.quiesce(ctx, o)
	}
	g.frozen.Store(true)
	return json.RawMessage(`{"ready":true}`), 3, nil
}

func (g *fakeGuest) Release(ctx context.Context) (json.RawMessage, error) {
	if g.release != nil {
		return g.release(ctx)
	}
	g.frozen.Store(false)
	return json.RawMessage(`{"released":true}`), nil
}

func (g *fakeGuest) Resumed(_ context.Context, r Resume) error {
	if g.resumed != nil {
		return g.resumed(r)
	}
	return nil
}

func (g *fakeGuest) Services() any {
	if g.services != nil {
		return g.services()
	}
	return []string{"web"}
}

func (g *fakeGuest) Shutdown(mode string) error {
	if g.shutdown != nil {
		return g.shutdown(mode)
	}
	return nil
}

func (g *fakeGuest) Status() Status                     { return Status{State: "running"} }
func (g *fakeGuest) Reports() []json.RawMessage         { return g.reports }
func (g *fakeGuest) Config() any                        { return []string{"a=b"} }
func (g *fakeGuest) Doctor() any                        { return map[string]bool{"safe": true} }
func (g *fakeGuest) Watchers() any                      { return []string{} }
func (g *fakeGuest) Interfaces() ([]Interface, error)   { return []Interface{{Name: "lo"}}, nil }
func (g *fakeGuest) Frozen() bool                       { return g.frozen.Load() }
func (g *fakeGuest) Log(service string, n int) []string { return []string{fmt.Sprint(service, n)} }

// hang blocks until ctx ends and then some: a guest that ignores its context.
func hang(ctx context.Context) { <-ctx.Done(); time.Sleep(time.Hour) }

// talk is a raw conversation with a server.
type talk struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
	err  chan error
}

// converse serves one end of a pipe until the test ends.
func converse(t *testing.T, s *Server, lasting bool) *talk {
	host, guest := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	k := &talk{t, host, bufio.NewReader(host), make(chan error, 1)}
	go func() { k.err <- s.serve(ctx, guest, lasting) }()
	t.Cleanup(func() { cancel(); host.Close(); guest.Close() })
	return k
}

func (k *talk) send(s string) {
	k.t.Helper()
	if _, err := io.WriteString(k.conn, s); err != nil {
		k.t.Fatal(err)
	}
}

func (k *talk) expect(want string) {
	k.t.Helper()
	got, err := k.r.ReadString('\n')
	if err != nil {
		k.t.Fatalf("got %q, %v; want %q", got, err, want)
	}
	if strings.TrimSuffix(got, "\n") != want {
		k.t.Errorf("got  %s\nwant %s", got, want)
	}
}

func generic(desc string) string {
	return fmt.Sprintf(`{"error":{"class":"GenericError","desc":%q}}`, desc)
}

func TestConversation(t *testing.T) {
	long := strings.Repeat("x", MaxLine+1)
	for _, c := range []struct{ name, in, want string }{
		{"ping", `{"execute":"guest-ping"}`, `{"return":{}}`},
		{"id is echoed", `{"execute":"guest-ping","id":{"a":[1,"b"]}}`, `{"return":{},"id":{"a":[1,"b"]}}`},
		{"empty arguments", `{"execute":"guest-ping","arguments":{}}`, `{"return":{}}`},
		{"space around", " \t{ \"execute\" : \"guest-ping\" } \r", `{"return":{}}`},
		{"blank lines", "\n\n" + `{"execute":"guest-ping"}`, `{"return":{}}`},
		{"sync", `{"execute":"guest-sync","arguments":{"id":-7}}`, `{"return":-7}`},
		{"sync delimited", `{"execute":"guest-sync-delimited","arguments":{"id":9007199254740993}}`, "\xff" + `{"return":9007199254740993}`},
		{"sync without id", `{"execute":"guest-sync"}`, generic(`guest-sync: argument "id" is missing`)},
		{"sentinel drops what stood before", `{"execute":"gue` + "\xff" + `{"execute":"guest-ping"}`, `{"return":{}}`},
		{"half a line before a request", `{"execute":"guest-fs{"execute":"guest-ping","id":2}`, `{"return":{},"id":2}`},
		{"unknown command", `{"execute":"guest-fly","id":1}`, `{"error":{"class":"CommandNotFound","desc":"the command guest-fly has not been found"},"id":1}`},
		{"no command", `{"id":1}`, `{"error":{"class":"GenericError","desc":"parse request: no command in \"execute\""},"id":1}`},
		{"not an object", `[1]`, generic("parse request: json: a list where an object should be")},
		{"two values", `{"execute":"guest-ping"} 5`, generic("parse request: json: more than one value: '5' at byte 26")},
		{"unknown member", `{"execute":"guest-ping","argments":{}}`, generic(`parse request: json: unknown field "argments"`)},
		{"unknown argument", `{"execute":"rouse-quiesce","arguments":{"time-out":1}}`, generic(`rouse-quiesce: arguments: unknown argument "time-out"; there are "timeout-ms leftovers"`)},
		{"bad leftovers", `{"execute":"rouse-quiesce","arguments":{"leftovers":"burn"}}`, generic(`rouse-quiesce: leftovers is "burn", must be abort, destroy or keep`)},
		{"bad time-out", `{"execute":"rouse-quiesce","arguments":{"timeout-ms":-1}}`, generic("rouse-quiesce: timeout-ms is -1, must be from 0 (the guest's own) to 2147483647")},
		{"too long", long, generic("request is longer than 1048576 bytes: refused")},
		{"too long, then not", long + "\n" + `{"execute":"guest-ping"}`, generic("request is longer than 1048576 bytes: refused") + "\n" + `{"return":{}}`},
		{"freeze", `{"execute":"guest-fsfreeze-freeze"}`, `{"return":3}`},
		{"freeze-list", `{"execute":"guest-fsfreeze-freeze-list","arguments":{"mountpoints":["/"]}}`, `{"return":3}`},
		{"thaw with nothing frozen", `{"execute":"guest-fsfreeze-thaw"}`, `{"return":0}`},
		{"status", `{"execute":"guest-fsfreeze-status"}`, `{"return":"thawed"}`},
		{"quiesce", `{"execute":"rouse-quiesce"}`, `{"return":{"ready":true}}`},
		{"release", `{"execute":"rouse-release"}`, `{"return":{"released":true}}`},
		{"resumed", `{"execute":"rouse-resumed","arguments":{"seed":"AAEC","time-ns":5,"identity":{"hostname":"a"},"generation":"g"}}`, `{"return":{}}`},
		{"no report", `{"execute":"rouse-report"}`, `{"return":null}`},
		{"no such report", `{"execute":"rouse-report","arguments":{"index":3}}`, generic("rouse-report: index is 3; 0 reports are kept")},
		{"no reports", `{"execute":"rouse-reports"}`, `{"return":[]}`},
		{"config", `{"execute":"rouse-config"}`, `{"return":["a=b"]}`},
		{"doctor", `{"execute":"rouse-doctor"}`, `{"return":{"safe":true}}`},
		{"service", `{"execute":"rouse-service","arguments":{"name":"web","action":"signal","signal":"HUP"}}`, `{"return":"web signal HUP"}`},
		{"service, bad action", `{"execute":"rouse-service","arguments":{"name":"web","action":"melt"}}`, generic(`rouse-service: action is "melt", must be start, stop, restart or signal`)},
		{"services", `{"execute":"rouse-services"}`, `{"return":["web"]}`},
		{"watchers", `{"execute":"rouse-watchers"}`, `{"return":[]}`},
		{"log", `{"execute":"rouse-log","arguments":{"service":"web"}}`, `{"return":["web100"]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := converse(t, NewServer(&fakeGuest{}, ServerOptions{}), false)
			go func() { io.WriteString(k.conn, c.in+"\n") }() // the server may answer before it has read all
			for _, want := range strings.Split(c.want, "\n") {
				k.expect(want)
			}
		})
	}
}

func TestResumedIsHandedOver(t *testing.T) {
	var got Resume
	k := converse(t, NewServer(&fakeGuest{resumed: func(r Resume) error { got = r; return nil }}, ServerOptions{}), false)
	k.send(`{"execute":"rouse-resumed","arguments":{"seed":"AAEC","time-ns":5,"identity":{"hostname":"a"},"generation":"g"}}` + "\n")
	k.expect(`{"return":{}}`)
	if !bytes.Equal(got.Seed, []byte{0, 1, 2}) || got.TimeNS != 5 || string(got.Identity) != `{"hostname":"a"}` || got.Generation != "g" {
		t.Errorf("got %+v", got)
	}
}

// TestFrozen holds the list of what answers while the guest is frozen: a command that touches services must
// be added on purpose.
func TestFrozen(t *testing.T) {
	answers := map[string]bool{
		"guest-sync": true, "guest-sync-delimited": true, "guest-ping": true, "guest-info": true, "guest-fsfreeze-thaw": true, "guest-fsfreeze-status": true,
		"guest-get-time": true, "guest-get-host-name": true, "guest-network-get-interfaces": true, "guest-get-vcpus": true,
		"rouse-release": true, "rouse-resumed": true, "rouse-wait": true, "rouse-status": true, "rouse-report": true, "rouse-reports": true, "rouse-config": true, "rouse-services": true,
		"rouse-watchers": true, "rouse-log": true,
	}
	for _, c := range commands() {
		if c.frozen != answers[c.name] {
			t.Errorf("%s: answers while frozen: %v, want %v", c.name, c.frozen, answers[c.name])
		}
	}
	g := &fakeGuest{}
	g.frozen.Store(true)
	k := converse(t, NewServer(g, ServerOptions{}), false)
	k.send(`{"execute":"guest-fsfreeze-freeze"}` + "\n")
	k.expect(`{"error":{"class":"Refused","desc":"guest-fsfreeze-freeze: refused: the guest is frozen; thaw or release it first"}}`)
	k.send(`{"execute":"guest-fsfreeze-status"}` + "\n")
	k.expect(`{"return":"frozen"}`)
}

func TestThawAnswersWhatWasFrozen(t *testing.T) {
	k := converse(t, NewServer(&fakeGuest{}, ServerOptions{}), false)
	for _, c := range [][2]string{{"freeze", "3"}, {"thaw", "3"}, {"thaw", "0"}} {
		k.send(`{"execute":"guest-fsfreeze-` + c[0] + `"}` + "\n")
		k.expect(`{"return":` + c[1] + `}`)
	}
}

func TestGuestErrorsHaveClasses(t *testing.T) {
	for _, c := range []struct {
		err   error
		class string
	}{
		{errors.New("hook web: exit status 1"), ClassGeneric},
		{fmt.Errorf("drain: %w", context.DeadlineExceeded), ClassTimeout},
		{fmt.Errorf("%w: no", ErrRefused), ClassRefused},
	} {
		g := &fakeGuest{quiesce: func(context.Context, QuiesceOptions) (json.RawMessage, int, error) { return nil, 0, c.err }}
		k := converse(t, NewServer(g, ServerOptions{}), false)
		k.send(`{"execute":"rouse-quiesce"}` + "\n")
		k.expect(fmt.Sprintf(`{"error":{"class":%q,"desc":%q}}`, c.class, "rouse-quiesce: "+c.err.Error()))
	}
}

// TestSecondQuiesceIsRefused asks from another connection while the first runs.
func TestSecondQuiesceIsRefused(t *testing.T) {
	begun, finish := make(chan bool), make(chan bool)
	g := &fakeGuest{quiesce: func(context.Context, QuiesceOptions) (json.RawMessage, int, error) {
		begun <- true
		<-finish
		return json.RawMessage(`{}`), 1, nil
	}}
	s := NewServer(g, ServerOptions{})
	first, second := converse(t, s, false), converse(t, s, false)
	first.send(`{"execute":"rouse-quiesce"}` + "\n")
	<-begun
	second.send(`{"execute":"guest-fsfreeze-freeze"}` + "\n")
	second.expect(`{"error":{"class":"Refused","desc":"guest-fsfreeze-freeze: refused: a quiesce is running already"}}`)
	finish <- true
	first.expect(`{"return":{}}`)
}

// TestQuiesceOutlivesItsConnection: the client goes in the middle; the guest ends the quiesce undisturbed, and another
// client sees and ends it.
func TestQuiesceOutlivesItsConnection(t *testing.T) {
	begun, finish := make(chan bool), make(chan bool)
	g := &fakeGuest{}
	g.quiesce = func(ctx context.Context, o QuiesceOptions) (json.RawMessage, int, error) {
		begun <- true
		select {
		case <-finish:
		case <-ctx.Done():
			t.Error("the quiesce was cancelled")
		}
		g.frozen.Store(true)
		return json.RawMessage(`{}`), 2, nil
	}
	s := NewServer(g, ServerOptions{})
	first := converse(t, s, false)
	first.send(`{"execute":"rouse-quiesce"}` + "\n")
	<-begun
	first.conn.Close()
	<-first.err
	finish <- true
	for s.quiescing.Load() {
		time.Sleep(time.Millisecond)
	}
	second := converse(t, s, false)
	second.send(`{"execute":"guest-fsfreeze-thaw"}` + "\n")
	second.expect(`{"return":2}`)
}

// TestSyncDropsOwedAnswers: a client gave up on a quiesce, finds its place, thaws, and never sees the
// answer of the quiesce.
func TestSyncDropsOwedAnswers(t *testing.T) {
	begun, aborted := make(chan bool), make(chan bool)
	g := &fakeGuest{
		quiesce: func(context.Context, QuiesceOptions) (json.RawMessage, int, error) {
			begun <- true
			<-aborted
			return nil, 0, errors.New("aborted by release")
		},
		release: func(context.Context) (json.RawMessage, error) { close(aborted); return json.RawMessage(`{}`), nil },
	}
	s := NewServer(g, ServerOptions{})
	k := converse(t, s, true)
	k.send(`{"execute":"guest-fsfreeze-freeze"}` + "\n")
	k.send(`{"execute":"rouse-status"}` + "\n") // waits behind it, is dropped with it
	<-begun
	k.send("\xff" + `{"execute":"guest-sync-delimited","arguments":{"id":1}}` + "\n")
	k.expect("\xff" + `{"return":1}`)
	k.send(`{"execute":"guest-fsfreeze-thaw"}` + "\n")
	k.expect(`{"return":0}`)
	k.send(`{"execute":"guest-ping"}` + "\n")
	k.expect(`{"return":{}}`)
}

// TestDeadlines: whatever the guest does, every command answers. The clock is the bubble's.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &fakeGuest{
			quiesce: func(ctx context.Context, _ QuiesceOptions) (json.RawMessage, int, error) {
				hang(ctx)
				return nil, 0, nil
			},
			services: func() any { time.Sleep(time.Hour); return nil },
		}
		s := NewServer(g, ServerOptions{QuiesceTimeout: 7 * time.Second, CommandTimeout: 3 * time.Second})
		k := converse(t, s, false)
		begin := time.Now()
		k.send(`{"execute":"rouse-services"}` + "\n")
		k.expect(`{"error":{"class":"Timeout","desc":"rouse-services: timed out: no result after 3s"}}`)
		k.send(`{"execute":"rouse-quiesce"}` + "\n")
		k.expect(`{"error":{"class":"Timeout","desc":"rouse-quiesce: timed out: no result after 7s"}}`)
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("took %v, want 10 s", took)
		}
		s.quiescing.Store(false) // as if the first had come back
		k.send(`{"execute":"rouse-quiesce","arguments":{"timeout-ms":100000}}` + "\n")
		k.expect(`{"error":{"class":"Timeout","desc":"rouse-quiesce: timed out: no result after 1m45s"}}`)
		k.send(`{"execute":"rouse-quiesce"}` + "\n") // it is still there
		k.expect(`{"error":{"class":"Refused","desc":"rouse-quiesce: refused: a quiesce is running already"}}`)
		k.conn.Close()
		time.Sleep(2 * time.Hour)
	})
}

// TestHangingGuestIsBounded: commands that never return do not pile up.
func TestHangingGuestIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(&fakeGuest{services: func() any { time.Sleep(time.Hour); return nil }}, ServerOptions{CommandTimeout: time.Second})
		k := converse(t, s, false)
		for range maxRunning {
			k.send(`{"execute":"rouse-services"}` + "\n")
			k.expect(`{"error":{"class":"Timeout","desc":"rouse-services: timed out: no result after 1s"}}`)
		}
		k.send(`{"execute":"rouse-services"}` + "\n")
		k.expect(`{"error":{"class":"Refused","desc":"rouse-services: refused: 64 commands are running already"}}`)
		k.conn.Close()
		time.Sleep(2 * time.Hour)
	})
}

func TestPanicIsAnError(t *testing.T) {
	k := converse(t, NewServer(&fakeGuest{services: func() any { panic("oh") }}, ServerOptions{}), false)
	k.send(`{"execute":"rouse-services"}` + "\n")
	k.expect(generic("rouse-services: panic: oh"))
}

// TestQueueIsBounded: a client that pipelines without reading is told so, and its connection lives.
func TestQueueIsBounded(t *testing.T) {
	begun, finish := make(chan bool), make(chan bool)
	g := &fakeGuest{services: func() any { begun <- true; <-finish; return []int{} }}
	k := converse(t, NewServer(g, ServerOptions{}), false)
	k.send(`{"execute":"rouse-services"}` + "\n")
	<-begun
	for range maxWaiting {
		k.send(`{"execute":"guest-ping"}` + "\n")
	}
	k.send(`{"execute":"guest-ping","id":"last"}` + "\n")
	k.expect(`{"error":{"class":"Refused","desc":"guest-ping: 16 requests are waiting already"},"id":"last"}`)
	finish <- true
	k.expect(`{"return":[]}`)
	for range maxWaiting {
		k.expect(`{"return":{}}`)
	}
}

// TestMuteReader: a client that never reads costs its own connection and nothing else.
func TestMuteReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(&fakeGuest{}, ServerOptions{WriteTimeout: time.Second})
		mute, other := converse(t, s, false), converse(t, s, false)
		mute.send(`{"execute":"guest-ping"}` + "\n")
		other.send(`{"execute":"guest-ping"}` + "\n")
		other.expect(`{"return":{}}`)
		if err := <-mute.err; !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("got %v, want the connection closed", err)
		}
	})
}

// TestMuteReaderOnPort: on a port that outlives its clients the answer is dropped and the next client is served.
func TestMuteReaderOnPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := converse(t, NewServer(&fakeGuest{}, ServerOptions{WriteTimeout: time.Second}), true)
		k.send(`{"execute":"guest-ping","id":1}` + "\n")
		k.conn.Read(make([]byte, 1)) // one byte of the answer, then no more
		time.Sleep(2 * time.Second)
		k.send("\xff" + `{"execute":"guest-sync-delimited","arguments":{"id":4}}` + "\n")
		k.expect("") // what was cut is ended
		k.expect("\xff" + `{"return":4}`)
	})
}

// TestReportsCountBack: 0 is the last one.
func TestReportsCountBack(t *testing.T) {
	g := &fakeGuest{reports: []json.RawMessage{[]byte("1"), []byte("2"), []byte("3")}}
	k := converse(t, NewServer(g, ServerOptions{}), false)
	for i, want := range []string{"3", "2", "1"} {
		k.send(fmt.Sprintf(`{"execute":"rouse-report","arguments":{"index":%d}}`, i) + "\n")
		k.expect(`{"return":` + want + `}`)
	}
	k.send(`{"execute":"rouse-report"}` + "\n")
	k.expect(`{"return":3}`)
	k.send(`{"execute":"rouse-reports"}` + "\n")
	k.expect(`{"return":[3,2,1]}`)
}

// TestFollowLog: a follower gets lines as they come, and no line when none came in his time.
func TestFollowLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		come := make(chan LogLine)
		g := &fakeGuest{since: func(ctx context.Context, after uint64, most int) ([]LogLine, uint64, error) {
			select {
			case l := <-come:
				return []LogLine{l}, l.Seq, nil
			case <-ctx.Done():
				return nil, after, ctx.Err()
			}
		}}
		k := converse(t, NewServer(g, ServerOptions{}), false)
		k.send(`{"execute":"rouse-log","arguments":{"service":"web","after":7,"timeout-ms":120000}}` + "\n")
		time.Sleep(100 * time.Second)
		come <- LogLine{8, "late"}
		k.expect(`{"return":{"lines":[{"seq":8,"text":"late"}],"next":8}}`)
		k.send(`{"execute":"rouse-log","arguments":{"service":"web","after":8,"timeout-ms":120000}}` + "\n")
		k.expect(`{"return":{"lines":[],"next":8}}`)
		k.send(`{"execute":"rouse-log","arguments":{"service":"web","after":8}}` + "\n")
		k.expect(`{"return":{"lines":[],"next":8}}`)
	})
}
