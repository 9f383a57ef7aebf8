package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kvd": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}

func TestMemory(t *testing.T) {
	for text, want := range map[string]int64{"64MiB": 64 << 20, "1GiB": 1 << 30, "100000000": 100_000_000, "65536 KiB": 64 << 20} {
		got, err := parseMemory(text)
		if err != nil || got != want {
			t.Errorf("%q gave %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"0", "-1", "1MiB", "x", "1e9", "99999999999GiB", "1 GB"} {
		if _, err := parseMemory(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	if defaultMemory() <= 0 {
		t.Error("there is no default")
	}
}

func TestExposed(t *testing.T) {
	for listen, want := range map[string]bool{"127.0.0.1:1": false, "[::1]:1": false, "localhost:1": false, ":1": true, "0.0.0.0:1": true, "10.0.0.1:1": true} {
		if (&settings{listen: listen}).exposed() != want {
			t.Errorf("%s: not %v", listen, want)
		}
	}
}
