package toml

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	oracle "github.com/BurntSushi/toml"
)

// plain makes of both readers' trees the same maps and slices. Floats and dates become their kind: what
// they are worth is of no interest.
func plain(v any) any {
	switch v := v.(type) {
	case float64:
		return Float
	case time.Time:
		return Time
	case []map[string]any:
		list := []any{}
		for _, e := range v {
			list = append(list, plain(e))
		}
		return list
	case []any:
		list := []any{}
		for _, e := range v {
			list = append(list, plain(e))
		}
		return list
	case map[string]any:
		m := map[string]any{}
		for k, e := range v {
			m[k] = plain(e)
		}
		return m
	case *Value:
		return plainValue(v)
	}
	return v
}

func plainValue(v *Value) any {
	switch v.Kind {
	case String:
		return v.Text
	case Integer:
		return v.Int
	case Boolean:
		return v.Int != 0
	case Array:
		list := []any{}
		for _, e := range v.List {
			list = append(list, plainValue(e))
		}
		return list
	case Table:
		m := map[string]any{}
		for _, e := range v.Members {
			m[e.Name] = plainValue(e.Value)
		}
		return m
	}
	return v.Kind
}

// holds says if a plain tree has a value of one of these kinds, which are Float or Time.
func holds(v any, kinds ...Kind) bool {
	switch v := v.(type) {
	case Kind:
		return slices.Contains(kinds, v)
	case []any:
		for _, e := range v {
			if holds(e, kinds...) {
				return true
			}
		}
	case map[string]any:
		for _, e := range v {
			if holds(e, kinds...) {
				return true
			}
		}
	}
	return false
}

// ask is the oracle's plain tree. It panics over some texts that it ought to refuse.
func ask(text string) (tree any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("panic in the oracle")
		}
	}()
	m := map[string]any{}
	_, err = oracle.Decode(text, &m)
	return plain(m), err
}

// differ compares the two readers over one text, and says what is wrong.
func differ(text string) string {
	doc, err := ParseFile("", []byte(text))
	theirs, theirErr := ask(text)
	var e *Error
	errors.As(err, &e)
	switch {
	case err == nil && theirErr == nil:
		if ours := plain(doc); !reflect.DeepEqual(ours, theirs) {
			return "differ:\nours   " + show(ours) + "\ntheirs " + show(theirs)
		}
	case err == nil:
		// We go by the shape of a date, and do not ask whether a float fits.
		if !holds(plain(doc), Time, Float) {
			return "only we accept; they: " + theirErr.Error()
		}
	case theirErr == nil:
		if !holds(theirs, Time, Float) && !stricter(text, e) {
			return "only they accept; we: " + err.Error()
		}
	}
	return ""
}

// stricter are the refusals that are meant: of tables that are added to from outside, which the oracle
// lists as its own faults (toml_test.go, SkipTests), of a UTF-16 mark, and of size.
func stricter(text string, e *Error) bool {
	return e.Redefined || strings.HasPrefix(text, "\xff\xfe") || strings.HasPrefix(text, "\xfe\xff") ||
		strings.Contains(e.Problem, "more than 64") || strings.Contains(e.Problem, "longer than")
}

func show(v any) string {
	var b strings.Builder
	_ = oracle.NewEncoder(&b).Encode(v)
	return b.String()
}

var documents = []string{
	"", "\n", "\r\n", "# c", " \t# c\r\n", "a=1#c", "\ufeffa=1",
	"a = 0\nb = +0\nc = -0\nd = 1_000\ne = 0xDEAD_beef\nf = 0o755\ng = 0b1_0\nh = -9223372036854775808\ni=9223372036854775807",
	"a = 0x\n", "a = 0b2", "a = 0o8", "a = 0X1", "a = 0x_1", "a = 1_", "a = _1", "a = +", "a = -", "a = 0_0", "a = 00", "a = - 1",
	"a = 0x8000000000000000", "a = 0b1111111111111111111111111111111111111111111111111111111111111111",
	"a = 1.5\nb = 1e3\nc = -inf\nd = +nan\ne = 1_0.0_1E-1_0\nf=6.0", "a = 1.e1", "a = .5", "a = 1e", "a = 01.5", "a = 1._5", "a=infinity", "a=1.5.5", "a=1e5.5",
	"a = 1979-05-27T07:32:00Z\nb = 1979-05-27 07:32:00.5-07:00\nc = 1979-05-27\nd = 07:32:00\ne = 1979-05-27t07:32:00z", "a = 1979-05-27 # c", "a = 1979-05-27 \n",
	"a = true\nb = false", "a = True", "a = truely", "a = true1", "a = true_",
	`a = "\b\t\n\f\r\"\\\e\x41\u00e9\U0001F600"`, `a = "\ "`, `a = "\U00110000"`, `a = "\uD800"`, `a = "\u12"`, `a = "\x4"`, `a = "\u+123"`, `a = "\UFFFFFFFF"`, `a = "\`, `a = "\"`, `a = "\a"`, `a = "\/"`,
	"a = 'C:\\x'", "a = ''", `a = ""`, "a = '\t'", "a = '\x7f'", "a = 'é\u0080'", "a = '\xc3'", "a = \"\n\"", "a = '\n'",
	`a = """"""`, `a = """a"""`, `a = """a"b""c"""""`, `a = """"""""`, `a = """a""""""`, `a = """\""""""`, `a = """\"""`, `a = """a\"""""""`,
	"a = \"\"\"\nx\n\"\"\"", "a = \"\"\"\r\nx\r\n\"\"\"", "a = \"\"\"x\\\n\n   y\\   \n z\"\"\"", "a = \"\"\"x\\ y\"\"\"", "a = \"\"\"x\\\r\n  y\"\"\"", "a = \"\"\"x\\\"\"\"", "a = \"\"\"\\\n\"\"\"", "a = \"\"\"\\\\\n\"\"\"", "a = \"\"\"\n\n\"\"\"",
	"a = ''''''", "a = '''''''", "a = '''\n'a'\\'''", "a = '''a'''''", "a = '''a''''''", "a = '''\n\r\n'''",
	"a.b.c = 1\na.b.d = 2", "a . b = 1", "'a.b'.\"c\" = 1", "\"\" = 1", "'' = 1\n\"a\\nb\" = 2", "a.\"\".b = 1", "\"\".a=1\n[\"\"]", "a. = 1", ".a = 1", "a..b = 1", "'''a''' = 1", "\"\"\"a\"\"\" = 1", "a b = 1", "é = 1", "1 = 1", "1.2 = 3", "-_- = 1", "= 1", "a\n= 1", "a =\n1", "[a]]", "[]", "[.a]", "[a.]", "[ a . 'b' ]\nx=1", "[a]x=1", "[a] # c\nx=1", "[[ a ]]", "[ [a]]", "[[a] ]", "[[a]", "[a\n]",
	"a = 1\na = 2", "a = 1\na.b = 2", "a.b = 1\na = 2", "[a]\n[a]", "[a.b]\n[a]\nx = 1", "[a.b]\n[a]\n[a]", "a.b = 1\n[a]", "a.b = 1\n[a.c]\nx=1", "[a]\nb.c=1\n[a.b]", "[a]\nb.c=1\n[a.b.d]", "[a]\nb.c=1\n[a.b.c]", "[[a]]\n[[a]]\n[a.b]\n[[a]]\n[a.b]", "[[a]]\n[a.b]\n[a.b]", "[[a.b]]\n[a]\nx=1", "[[a.b]]\n[[a]]", "[a]\n[[a]]", "[[a]]\n[a]", "a=[]\n[[a]]", "a={}\n[a.b]", "a={}\na.b=1", "a={b={}}\n[a.b.c]", "a={b.c=1,b.d=2}", "a={b.c=1,b=2}", "a={b=1,b=1}", "[a]\n[b]\n[a.c]\n[b.c]", "[[a]]\nb=1\n[[a]]\n[[a.b]]\n[[a.b]]\nc=1\n[a.b.d]\ne=1",
	"a = []", "a = [,]", "a = [1,]", "a = [1,,2]", "a = [1 2]", "a = [\n# c\n1 # d\n, # e\n2\n]", "a = [1, 'x', [true], {b = 1}]", "a = [[[]]]", "a = [", "a = [1", "a = [1,", "a = ]",
	"a = {}", "a = { }", "a = {b=1}", "a = {b=1,}", "a = {b=1,c=2}", "a = {\nb=1,# x\n\nc=2\n}", "a = {,}", "a = {b=1,,c=2}", "a = {b}", "a = {", "a = {b=1", "a = {b=1 c=2}", "a = {b=1\nc=2}", "a = {\n}", "a = {b=1 # c\n}", "a = {b=1}\nc = 2", "a = {b=[{c=1},{c=2}]}", "a = [{b=1},{b=2}]", "a=[{b.c=1},{b.d=1}]",
	"a = 1 b = 2", "a = 1,", "a = 'x''y'", "a = \"x\"y", "a = {}x", "a = []x", "a = 1 \r", "a = 1\r", "\r", "a = 1\x00", "\x00", "# \x01", "\x0b", "a = 1\f", "a\u00a0= 1", "a =\u00a01", "a", "a =", "a = #", "a = # c\n",
}

func TestDocuments(t *testing.T) {
	for _, text := range documents {
		if d := differ(text); d != "" {
			t.Errorf("%q: %s", text, d)
		}
	}
}

// later are the files of toml-test that TOML 1.1 made valid, and that are read here too.
var later = []string{
	"invalid/inline-table/linebreak-01.toml",
	"invalid/inline-table/linebreak-02.toml",
	"invalid/inline-table/linebreak-03.toml",
	"invalid/inline-table/linebreak-04.toml",
	"invalid/inline-table/trailing-comma.toml",
	"invalid/string/basic-byte-escapes.toml",
}

// TestSuite reads toml-test, the suite of the makers of TOML, which the oracle's module carries.
func TestSuite(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/BurntSushi/toml").Output()
	if err != nil {
		t.Skipf("toml-test is not there: the go command does not find BurntSushi/toml: %v", err)
	}
	root := filepath.Join(strings.TrimSpace(string(out)), "internal/toml-test/tests")
	counts := map[string]int{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".toml" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		folder, _, _ := strings.Cut(name, string(filepath.Separator))
		counts[folder]++
		doc, err := ParseFile("", text)
		switch {
		case folder == "valid" && err != nil:
			t.Errorf("%s: %v", name, err)
		case folder == "valid":
			if d := differ(string(text)); d != "" {
				t.Errorf("%s: %s", name, d)
			}
		case folder == "invalid" && err == nil && !holds(plain(doc), Time) && !slices.Contains(later, filepath.ToSlash(name)):
			t.Errorf("%s: accepted:\n%s", name, text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if counts["valid"] < 200 || counts["invalid"] < 400 {
		t.Errorf("only %v files found", counts)
	}
}

// FuzzParse: what we accept, the oracle accepts with the same values; what it accepts, we accept, but for
// floats, dates and stricter.
func FuzzParse(f *testing.F) {
	for _, d := range documents {
		f.Add(d)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if d := differ(text); d != "" {
			t.Error(d)
		}
	})
}

// tokens are what TOML is made of; the fuzzer, left to bytes, seldom finds a nested table.
var tokens = strings.Fields(`[ ] [[ ]] [a] [a.b] [b] [[a]] [[a.b]] [[b]] { } , . = a= b= a.b= a.b.c= b.a= a b c "a" 'b' 1 0x1f -7 true "x\ty" 'z' """ ''' \ # ={ =[ {a= ,b= 1.5 2026-11-23`)

// spell makes a text of tokens. A byte beyond them is an end of line, so that there are many.
func spell(choice []byte) string {
	var b strings.Builder
	for _, c := range choice {
		switch {
		case int(c) < len(tokens):
			b.WriteString(tokens[c])
		case c == 255:
			b.WriteString(" ")
		default:
			b.WriteString("\n")
		}
	}
	return b.String()
}

// FuzzTokens is FuzzParse over texts that look like TOML.
func FuzzTokens(f *testing.F) {
	for i := range tokens {
		f.Add([]byte{byte(i), 13, 24, 200, 4, 200, 14, byte(i), 24, 200, 5})
	}
	f.Fuzz(func(t *testing.T, choice []byte) {
		if d := differ(spell(choice)); d != "" {
			t.Errorf("%q: %s", spell(choice), d)
		}
	})
}

// FuzzDecode: a struct that we fill without an error, the oracle fills with the same values, and every
// error and every position lies in the text.
func FuzzDecode(f *testing.F) {
	for _, d := range documents {
		f.Add(d)
	}
	f.Add("text='a'\non=true\ntiny=-1\nbig=1\nwait='1s'\nnumbers=[[1],[]]\nsub.item.name='x'\n[[service]]\nport=1\nexec=['a']\n[[service.hook]]\nname='y'")
	f.Fuzz(func(t *testing.T, text string) {
		doc, err := ParseFile("", []byte(text))
		var e *Error
		if errors.As(err, &e) {
			inside(t, text, e.Position)
			return
		}
		var ours, theirs document
		errs := doc.Decode(&ours)
		for _, e := range errs {
			inside(t, text, e.Position)
		}
		if len(errs) > 0 {
			return
		}
		if _, err := oracle.Decode(text, &theirs); err != nil || !reflect.DeepEqual(ours, theirs) {
			t.Errorf("%v: ours %+v, theirs %+v", err, ours, theirs)
		}
	})
}

func inside(t *testing.T, text string, p Position) {
	lines := strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n")
	if p.Line < 1 || p.Line > len(lines) || p.Column < 1 || p.Column > len(lines[p.Line-1])+1 {
		t.Errorf("line %d, column %d is not in the text", p.Line, p.Column)
	}
}
