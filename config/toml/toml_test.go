package toml

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// duration stands for the types that read themselves.
type duration time.Duration

func (d *duration) SetText(text string) error {
	v, err := time.ParseDuration(text)
	*d = duration(v)
	return err
}

// UnmarshalText is for the oracle.
func (d *duration) UnmarshalText(text []byte) error { return d.SetText(string(text)) }

type item struct {
	Name  string   `toml:"name"`
	Exec  []string `toml:"exec"`
	Port  uint16   `toml:"port"`
	Hooks []item   `toml:"hook"`
}

type document struct {
	Text    string   `toml:"text"`
	On      bool     `toml:"on"`
	Tiny    int8     `toml:"tiny"`
	Big     uint64   `toml:"big"`
	Wait    duration `toml:"wait"`
	Numbers [][]int  `toml:"numbers"`
	Sub     struct {
		Item item `toml:"item"`
	} `toml:"sub"`
	Items []item `toml:"service"`
	Inner string // has no key
}

func TestDecode(t *testing.T) {
	text := `text = "a\u00e9\n" # comment
on = true
big = 0xffff_ffff
wait = "250ms"
numbers = [ [1, 2], # one
  [], [-3] ]
sub.item.name = 'x\n'
sub.item.hook = [ { name = "in" }, { name = "line", port = 443 } ]

[[service]]
"name" = """
two
lines \
    joined"""
[[service]]
exec = ["/bin/true",]
[[service.hook]]
name = "h"
`
	want := document{Text: "aé\n", On: true, Tiny: 7, Big: 0xffffffff, Wait: duration(250 * time.Millisecond), Numbers: [][]int{{1, 2}, {}, {-3}}}
	want.Sub.Item = item{Name: `x\n`, Hooks: []item{{Name: "in"}, {Name: "line", Port: 443}}}
	want.Items = []item{{Name: "two\nlines joined"}, {Exec: []string{"/bin/true"}, Hooks: []item{{Name: "h"}}}}
	for name, text := range map[string]string{"lf": text, "crlf": strings.ReplaceAll(text, "\n", "\r\n"), "bom": "\ufeff" + text} {
		t.Run(name, func(t *testing.T) {
			doc, err := ParseFile("", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			got := document{Tiny: 7}
			if errs := doc.Decode(&got); len(errs) > 0 {
				t.Fatal(errs)
			}
			for i := range got.Items {
				got.Items[i].Name = strings.ReplaceAll(got.Items[i].Name, "\r", "")
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// Decode tells of all that is wrong, each with its place and whole key.
func TestDecodeRefuses(t *testing.T) {
	doc, err := ParseFile("", []byte(`text = 3
txt = 3
Text = "names are letter by letter"
tiny = 128
big = -1
wait = 10
numbers = [[1], 2,
   [1.5, 2026-11-23]]
"a b".c = 1

[[service]]
exec = "x"
[[service]]
exec = ["a", true]
hook = [{ name = "a" },
        { nam = "b" }]
[unknown]
x = 1
[sub]
item = []
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"line 1, column 8: text: an integer where a string belongs",
		"line 2, column 1: txt: no such key",
		"line 3, column 1: Text: no such key",
		"line 4, column 8: tiny: 128 is out of range for int8",
		"line 5, column 7: big: -1 is out of range for uint64",
		`line 6, column 8: wait: time: missing unit in duration "10"`,
		"line 7, column 17: numbers[1]: an integer where an array belongs",
		"line 8, column 5: numbers[2][0]: a float is of no use here, an integer belongs here",
		"line 8, column 10: numbers[2][1]: a date or time is of no use here, an integer belongs here",
		`line 9, column 1: "a b": no such key`,
		"line 12, column 8: service[0].exec: a string where an array belongs",
		"line 14, column 14: service[1].exec[1]: a boolean where a string belongs",
		"line 16, column 11: service[1].hook[1].nam: no such key",
		"line 17, column 2: unknown: no such key",
		"line 20, column 8: sub.item: an array where a table belongs",
	}
	var got []string
	for _, e := range doc.Decode(new(document)) {
		got = append(got, e.Error())
		if e.Unknown != strings.HasSuffix(e.Problem, "no such key") {
			t.Errorf("%v: Unknown is %v", e, e.Unknown)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What is no TOML is refused where it is wrong.
func TestParseRefuses(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"no value":            {"a = \n", "line 1, column 5: a: expected a value, found the end of the line"},
		"no equals":           {"a\n", "line 1, column 2: a: expected '=' after the key, found the end of the line"},
		"no key":              {"[s]\n = 1", "line 2, column 2: s: expected a key, found '='"},
		"two on a line":       {"a = 1 b = 2", "line 1, column 7: expected the end of the line, found 'b'"},
		"bare word":           {"a = yes", `line 1, column 5: a: "yes" is not a value; a string needs quotes`},
		"not closed":          {"a = \"x\nb = 1", "line 1, column 5: a: a string that is not closed on its line"},
		"never closed":        {"a = [\n'''x\n", "line 2, column 1: a[0]: a string that is not closed"},
		"escape":              {`a = "\d"`, `line 1, column 6: a: no such escape`},
		"surrogate":           {`a = "\ud800"`, `line 1, column 7: a: an escape that is no character: \u takes 4 hexadecimal digits`},
		"six quotes":          {`a = '''b''''''`, "too many quotes"},
		"array":               {"a = [1 2]", "line 1, column 8: a: expected ',' or ']', found '2'"},
		"header":              {"[[a] ]", "line 1, column 5: expected ']', found ' '"},
		"in list":             {"[[a]]\n[[a]]\n[a.b]\nc.d = [0,{e = x}]", `line 4, column 15: a[1].b.c.d[1].e: "x" is not a value`},
		"nul":                 {"a = 1 # \x00", "line 1, column 9: this character is not allowed in TOML: '\\x00'"},
		"utf-8":               {"\n# \xff", "line 2, column 3: this character is not allowed"},
		"lone cr":             {"a = '''\r'''", "line 1, column 8: this character is not allowed"},
		"int64":               {"a = 9223372036854775808", "a: 9223372036854775808 does not fit in 64 bits"},
		"leading zero":        {"a = 01", `"01" is not a value`},
		"underscores":         {"a = 1__0", `"1__0" is not a value`},
		"sign and base":       {"a = +0x1", `"+0x1" is not a value`},
		"half a float":        {"a = 1.", `"1." is not a value`},
		"deep":                {"a = " + strings.Repeat("[", 200000), "nested more than 64 deep"},
		"deep tables":         {"a = " + strings.Repeat("{a=", 70000), "nested more than 64 deep"},
		"long key":            {strings.Repeat("a.", 100000) + "a = 1", "a key of more than 64 parts"},
		"big":                 {strings.Repeat("#", MaxSize+1), "longer than 262144 bytes"},
		"key twice":           {"a = 1\n'a' = 2", "line 2, column 1: a: is there already"},
		"table twice":         {"[a]\n[a]", "line 2, column 2: a: is there already"},
		"table after dotted":  {"a.b = 1\n[a]", "line 2, column 2: a: is there already"},
		"table after list":    {"[[a]]\n[a]", "line 2, column 2: a: is there already"},
		"list after table":    {"[a]\n[[a]]", "line 2, column 3: a: is there already"},
		"list after array":    {"a = []\n[[a]]", "line 2, column 3: a: is there already"},
		"list after implied":  {"[a.b]\n[[a]]", "line 2, column 3: a: is there already"},
		"through inline":      {"a = {}\n[a.b]", "line 2, column 2: a: is there already"},
		"through array":       {"a = [{}]\n[a.b]", "line 2, column 2: a: is there already"},
		"through value":       {"a = 1\n[a.b]", "line 2, column 2: a: is there already"},
		"dotted into header":  {"[a.b]\n[a]\nb.c = 1", "line 3, column 1: a.b: is there already"},
		"dotted into list":    {"[[a.b]]\n[a]\nb.c = 1", "line 3, column 1: a.b: is there already"},
		"dotted into inline":  {"a = {b = {}, b.c = 1}", "line 1, column 14: a.b: is there already"},
		"dotted into element": {"[[l]]\n[[l]]\na = {}\na.b = 1", "line 4, column 1: l[1].a: is there already"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ParseFile("", []byte(tt.text))
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error = %v, want %q in it", err, tt.want)
			}
			if e.Redefined != strings.Contains(tt.want, "there already") {
				t.Errorf("Redefined is %v", e.Redefined)
			}
		})
	}
}

func TestAt(t *testing.T) {
	doc, err := ParseFile("", []byte("[quiesce]\ntimeout = '1s'\n[[service]]\n[[service]]\nname = 'b'\nhook = [\n{},\n{ exec = [\n'x'] }]\n"))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]int{
		"quiesce": 1, "quiesce.timeout": 2, "quiesce.other": 1, "quiesce.timeout.more": 2,
		"service": 3, "service[0]": 3, "service[0].name": 3, "service[1].name": 5, "service[2]": 3, "service[-1]": 3,
		"service[1].hook[1].exec": 8, "service[1].hook[1].exec[0]": 9, "service[1].hook[0].exec": 7,
		"": 1, "no": 1, ".": 1, "[": 1, "service[": 3, "service]": 1, "service[x": 3, "quiesce..timeout": 1,
	}
	for key, want := range tests {
		if got := doc.At(key).Line; got != want {
			t.Errorf("%q is on line %d, want %d", key, got, want)
		}
	}
}

// Reading takes time in proportion to the text, whatever its shape: it is counted in allocations.
func TestParseIsLinear(t *testing.T) {
	shapes := map[string]string{"keys": "k%d = 1\n", "lists": "[[a]]\nb%d=1\n", "tables": "[t.k%d]\n", "inline": "i%d = {a=[1,{}]}\n"}
	for name, format := range shapes {
		t.Run(name, func(t *testing.T) {
			count := func(n int) float64 {
				var b strings.Builder
				for i := range n {
					fmt.Fprintf(&b, format, i)
				}
				text := []byte(b.String())
				return testing.AllocsPerRun(1, func() {
					if _, err := ParseFile("", text); err != nil {
						t.Fatal(err)
					}
				})
			}
			if few, many := count(500), count(5000); many > 12*few {
				t.Errorf("%.0f allocations for 500 lines, %.0f for 5000", few, many)
			}
		})
	}
}
