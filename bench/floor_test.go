package main

import (
	"bufio"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

type discard struct{ strings.Builder }

func (*discard) Close() error { return nil }

func said(text string) *floorProcess {
	return &floorProcess{in: &discard{}, out: bufio.NewScanner(strings.NewReader(text))}
}

func TestFloorRound(t *testing.T) {
	p := said("drain\t10\nshut\t2.5\ndone\nbarrier\t1\ndone\n")
	took, names, err := p.round(3)
	if err != nil || !reflect.DeepEqual(names, []string{"drain", "shut"}) || took["drain"] != 10 || took["shut"] != 2.5 {
		t.Errorf("%v %v %v", took, names, err)
	}
	if _, names, err := p.round(3); err != nil || len(names) != 1 {
		t.Errorf("second round: %v %v", names, err)
	}
	if _, _, err := p.round(3); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a process that is gone: %v", err)
	}
	if _, _, err := said("drain 10\ndone\n").round(1); err == nil {
		t.Error("a line without a value passes")
	}
}

func TestFloorRatios(t *testing.T) {
	steps := func(ns string) string {
		s := ""
		for _, name := range []string{"drain", "shut", "barrier", "freeze", "sever", "thaw", "open", "clear"} {
			s += name + "\t" + ns + "\n"
		}
		return strings.Replace(s, "barrier\t"+ns, "barrier\t1000", 1) + "done\n"
	}
	var r Record
	if err := compareFloor(&r, said(steps("30")), said(steps("10")), 7); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]float64{"drain": 3, "barrier": 1, "resume": 3, "all but barrier": 3, "all": 1210.0 / 1070} {
		if row := r.find(name, 7, "ratio"); row == nil || row.median() != want {
			t.Errorf("%s: %+v, want %v", name, row, want)
		}
	}
	if row := r.find("floor/barrier", 7, "time"); row == nil || row.median() != 1000 {
		t.Errorf("floor/barrier: %+v", row)
	}
}
