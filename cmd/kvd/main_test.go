package main

import (
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/pflag"

	"github.com/kvdstore/kvd/raftmeta"
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

// TestExamples: what the banner tells to type works with TLS, too.
func TestExamples(t *testing.T) {
	plain := (&settings{advertise: "h:1"}).examples()
	secure := (&settings{advertise: "h:1", cert: "c", key: "k", ca: "ca.pem"}).examples()
	if !strings.Contains(plain, "-plaintext") || strings.Contains(plain, "ca") && strings.Contains(plain, "--tls") {
		t.Error(plain)
	}
	if strings.Contains(secure, "-plaintext") || strings.Count(secure, "ca.pem") != 3 {
		t.Error(secure)
	}
}

// TestOperationsNamesEverything: each flag and each setting has its line in docs/operations.md, with its default.
func TestOperationsNamesEverything(t *testing.T) {
	b, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	described := func(name, standard string) {
		for _, line := range lines {
			if strings.HasPrefix(line, "| `"+name+"` |") && (standard == "" || strings.Contains(line, "`"+standard+"`")) {
				return
			}
		}
		t.Errorf("docs/operations.md does not describe %s with its default %q", name, standard)
	}
	flags := pflag.NewFlagSet("kvd", pflag.ContinueOnError)
	defineFlags(flags)
	flags.VisitAll(func(f *pflag.Flag) { described("--"+f.Name, f.DefValue) })
	for _, d := range raftmeta.Definitions {
		described(d.Name, d.Default)
	}
}
