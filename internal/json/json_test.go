package json

import (
	"bytes"
	stdjson "encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// everything has a field of each kind that the guest's types have.
type everything struct {
	Bool    bool              `json:"bool"`
	Int     int               `json:"int"`
	Small   int8              `json:"small,omitempty"`
	Uint    uint64            `json:"uint"`
	Port    uint16            `json:"port"`
	Float   float64           `json:"float"`
	Text    string            `json:"text,omitempty"`
	Bytes   []byte            `json:"bytes"`
	Raw     RawMessage        `json:"raw,omitempty"`
	Pointer *int              `json:"pointer,omitempty"`
	List    []inner           `json:"list"`
	Map     map[string]string `json:"map,omitempty"`
	Any     any               `json:"any,omitempty"`
	Addr    netip.Addr        `json:"addr"`
	Prefix  []netip.Prefix    `json:"prefix,omitempty"`
	Nested  inner             `json:"nested"`
	Span    time.Duration     `json:"span"`
	Left    string            `json:"-"`
	NoTag   string
	Named   map[named]int `json:"named,omitempty"`
	hidden  int
}

type named string

// dated is written only: reading times is what package time may do without.
type dated struct {
	Time time.Time `json:"time,omitzero"`
}

type inner struct {
	Name string `json:"name"`
	Next *inner `json:"next,omitempty"`
}

func values() []any {
	seven := 7
	return []any{
		nil, true, 0, -1, uint8(200), 1.5, 1e21, 1e-7, 123456789.0, float32(0.1), "", "plain", []string(nil), []string{}, []int{1, 2}, [2]int{3, 4},
		"quote \" back \\ slash / tab \t bell \a nul \x00 <b>&amp;</b> \u2028 é 日本 😀 \xff\xfe broken",
		map[string]any{"b": 1, "a": []any{nil, "x"}}, map[string]string(nil), []byte("bytes"), []byte(nil),
		dated{}, dated{time.Unix(1700000000, 5).UTC()}, map[named]int{"x": 1},
		everything{}, &everything{Pointer: &seven, hidden: 1},
		everything{Bool: true, Int: -5, Small: 3, Uint: 1 << 63, Port: 443, Float: 2.25, Text: "x", Bytes: []byte{0, 1}, Raw: RawMessage(` { "a" : [ 1 , "x \" y" ] } `),
			List: []inner{{"a", &inner{"b", nil}}}, Map: map[string]string{"k": "v"}, Any: []any{"a", 1.0}, Addr: netip.MustParseAddr("10.0.0.1"),
			Prefix: []netip.Prefix{netip.MustParsePrefix("fd00::/8")}, NoTag: "n", Span: time.Second},
	}
}

func TestMarshalAsStandard(t *testing.T) {
	for _, v := range values() {
		want, err := stdjson.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Marshal(v)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%#v:\n got %s, %v\nwant %s", v, got, err, want)
		}
		var indented, plain bytes.Buffer
		e := stdjson.NewEncoder(&indented)
		e.SetIndent("", "  ")
		if err := e.Encode(v); err != nil {
			t.Fatal(err)
		}
		if err := Write(&plain, v, true); err != nil || plain.String() != indented.String() {
			t.Errorf("indented:\n%s%v\nwant\n%s", plain.String(), err, indented.String())
		}
	}
}

func TestMarshalRefuses(t *testing.T) {
	type ring struct{ Next *ring }
	r := &ring{}
	r.Next = r
	for _, v := range []any{r, make(chan int), map[int]string{1: "a"}, RawMessage("{"), RawMessage("1 2"), func() {}} {
		if text, err := Marshal(v); err == nil {
			t.Errorf("%T: %s", v, text)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	for _, v := range values() {
		e, ok := v.(everything)
		if !ok {
			continue
		}
		text, err := Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var got, want everything
		if err := UnmarshalStrict(text, &got); err != nil {
			t.Fatal(err)
		}
		if err := stdjson.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
	}
}

var texts = []string{
	`{}`, `null`, `[]`, ``, ` `, `{`, `{"a"}`, `{"a":}`, `{"a":1,}`, `[1,]`, `[1 2]`, `01`, `-`, `1.`, `.5`, `1e`, `1e+`, `+1`, `tru`, `truex`, `"a`, `"\x"`, `"\u12"`, `"\ud800"`,
	`"\ud83d\ude00"`, `"\ud83d\u0041"`, "\"\x01\"", "\"\xff\"", `{"int":1.0}`, `{"int":1e2}`, `{"int":"1"}`, `{"INT":4}`, `{"int":null,"list":null}`, `{"port":70000}`, `{"port":-1}`,
	`{"bytes":"AAE="}`, `{"bytes":"*"}`, `{"raw":[1, {"x":2}]}`, `{"raw":null}`, `{"pointer":3}`, `{"list":[{"name":"a","next":{"name":"b"}}]}`, `{"list":{}}`, `{"map":{"a":"b","c":null}}`,
	`{"any":{"a":[1,"x",null,true,false]}}`, `{"addr":"::1"}`, `{"addr":"x"}`, `{"addr":5}`, `{"addr":""}`, `{"prefix":["10.0.0.0/8",""]}`, `{"prefix":["10.0.0.0"]}`, `{"named":{"k":1}}`, `{"nested":{"name":"n","more":1}}`, `{"NoTag":"x","notag":"y"}`,
	` { "bool" : true , "text" : "a\/b\n" } `, `{"bool":1}`, `{"text":true}`, `{}{}`, `{"hidden":3}`, `{"-":3}`, `{"span":5}`, `true`, `"text"`, `5`,
}

func TestUnmarshalAsStandard(t *testing.T) {
	for _, text := range texts {
		compare(t, []byte(text))
	}
	deep := strings.Repeat("[", 300) + strings.Repeat("]", 300)
	var v any
	if err := Unmarshal([]byte(deep), &v); err == nil {
		t.Error("300 levels were accepted")
	}
}

// compare reads text in every way that there is, with both packages.
func compare(t *testing.T, text []byte) {
	t.Helper()
	var got, want everything
	err, wantErr := Unmarshal(text, &got), stdjson.Unmarshal(text, &want)
	if (err == nil) != (wantErr == nil) {
		t.Errorf("%q: %v, want %v", text, err, wantErr)
	} else if err == nil && !reflect.DeepEqual(got, want) {
		t.Errorf("%q:\n got %+v\nwant %+v", text, got, want)
	}
	var gotAny, wantAny any
	err, wantErr = Unmarshal(text, &gotAny), stdjson.Unmarshal(text, &wantAny)
	if (err == nil) != (wantErr == nil) || err == nil && !reflect.DeepEqual(gotAny, wantAny) {
		t.Errorf("%q: %v %v, want %v %v", text, gotAny, err, wantAny, wantErr)
	}
	d := stdjson.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var strict, wantStrict everything
	err, wantErr = UnmarshalStrict(text, &strict), d.Decode(&wantStrict)
	if wantErr == nil && d.More() {
		return // the standard decoder reads on; we want one value
	}
	if wantErr == nil && stdjson.Valid(text) && err != nil || wantErr != nil && err == nil {
		t.Errorf("strict %q: %v, want %v", text, err, wantErr)
	}
}

func FuzzUnmarshal(f *testing.F) {
	for _, text := range texts {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if strings.Count(string(text), "[")+strings.Count(string(text), "{") > maxDepth/2 {
			return
		}
		compare(t, text)
	})
}

func FuzzMarshal(f *testing.F) {
	f.Add("text", 1.5, int64(3), []byte("x"))
	f.Fuzz(func(t *testing.T, s string, x float64, n int64, b []byte) {
		v := map[string]any{s: x, "n": n, "b": b, "s": []string{s}}
		want, wantErr := stdjson.Marshal(v)
		got, err := Marshal(v)
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
			t.Errorf("got %s, %v; want %s, %v", got, err, want, wantErr)
		}
	})
}
