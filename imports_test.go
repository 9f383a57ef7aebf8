package kvd_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/kvdstore/kvd/"

// allowed is the table of docs/architecture.md: who may import whom.
var allowed = map[string][]string{
	"kv":              {},
	"api/kvd/v1":      {},
	"api/wire":        {"kv", "api/kvd/v1"},
	"storage":         {"kv", "api/kvd/v1", "internal/faults"},
	"cache":           {"kv"},
	"geo":             {"kv"},
	"replica":         {"kv", "api/kvd/v1", "api/wire"},
	"shard":           {"kv", "api/kvd/v1", "api/wire", "replica"},
	"shard/loadcut":   {"kv", "shard"},
	"raftmeta":        {"kv", "api/kvd/v1", "api/wire", "replica"},
	"raftmeta/plan":   {"kv", "api/kvd/v1", "api/wire", "raftmeta"},
	"snapshot":        {"kv", "api/kvd/v1", "storage", "snapshot/pairs"},
	"node":            {"kv", "api/kvd/v1", "api/wire", "storage", "cache", "replica", "shard", "shard/loadcut", "raftmeta", "raftmeta/plan", "snapshot", "internal/faults"},
	"transport":       {"kv", "api/kvd/v1", "api/wire", "internal/faults"},
	"server":          {"kv", "api/kvd/v1", "api/wire", "node"},
	"client/route":    {"kv"},
	"client":          {"kv", "api/kvd/v1", "api/wire", "client/route"},
	"check":           {"kv"},
	"sim":             {"kv", "api/kvd/v1", "api/wire", "client/route", "storage", "cache", "shard", "raftmeta", "node", "check"},
	"cmd/kvd":         {"kv", "raftmeta", "node", "server", "transport", "internal/faults", "internal/sched"},
	"cmd/kvcli":       {"kv", "api/kvd/v1", "api/wire", "client", "geo", "backup", "check", "jepsen/workload"},
	"bench/local":     {"kv"},
	"bench":           {"kv", "bench/echo", "bench/hitrate", "bench/load", "bench/measure", "bench/peers", "bench/report", "bench/target", "bench/turns", "bench/local", "cache", "internal/wait"},
	"bench/echo":      {"kv", "api/kvd/v1", "api/wire"},
	"bench/hitrate":   {"kv", "cache", "bench/load"},
	"bench/load":      {"kv", "geo", "internal/wait"},
	"bench/measure":   {},
	"bench/peers":     {"kv", "client", "bench/load", "bench/local", "bench/target"},
	"bench/report":    {"bench/measure"},
	"bench/target":    {"kv", "api/kvd/v1", "api/wire", "client", "bench/load", "bench/measure"},
	"bench/turns":     {"kv", "api/kvd/v1", "client", "bench/local", "bench/measure", "bench/report", "internal/wait"},
	"bench/changes":   {"kv", "api/kvd/v1", "client", "check", "bench/local", "internal/wait"},
	"bench/hotspot":   {"kv", "api/kvd/v1", "client", "geo", "bench/local", "internal/wait"},
	"jepsen":          {"kv", "api/kvd/v1", "api/wire", "client", "check", "jepsen/cluster", "jepsen/nemesis", "jepsen/overload", "jepsen/report", "jepsen/workload", "internal/wait"},
	"jepsen/overload": {"kv", "internal/wait"},
	"jepsen/cluster":  {"kv", "internal/wait"},
	"jepsen/nemesis":  {"kv", "api/kvd/v1", "client", "check", "jepsen/cluster", "internal/wait"},
	"jepsen/workload": {"kv", "api/kvd/v1", "client", "check", "internal/wait"},

	"internal/test": {"kv", "api/kvd/v1", "api/wire", "node", "server", "transport", "client"},

	"snapshot/pairs": {"kv"},
	"backup":         {"kv", "api/kvd/v1", "snapshot/pairs"},

	"sim/cmd/simulate": {"kv", "sim"},
	"internal/wait":    {},
	"internal/sched":   {},
	"jepsen/report":    {"kv", "check", "jepsen/workload"},
	"internal/faults":  {"kv", "api/kvd/v1", "check"}, // Of test builds alone: TestNormalBuild.
}

// pure lists what starts no goroutine, takes no lock, reads no clock, draws nothing by chance and does no I/O: whole
// packages, or files of one.
var pure = []string{
	"replica/", "shard/", "raftmeta/", "node/core.go", "node/apply.go", "node/group.go", "node/rates.go", "node/upkeep.go", "node/full.go", "node/checksum.go",
	"node/snapshots.go", "node/load.go", "node/births.go", "node/removal.go", "node/conduct.go", "node/reports.go",
	"node/orders.go", "node/splits.go", "node/merges.go", "node/survey.go", "node/found.go", "node/joiner.go", "client/route/", "jepsen/report/",
}

// sources calls f with every source file that is no test and was not generated.
func sources(t *testing.T, f func(name string, file *ast.File)) {
	require.NoError(t, filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || otherModule(name)) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, ".pb.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err == nil {
			f(filepath.ToSlash(name), file)
		}
		return err
	}))
}

// otherModule tells whether a directory is a module of its own, which can import nothing of ours but what everybody can.
func otherModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

func TestImports(t *testing.T) {
	sources(t, func(name string, file *ast.File) {
		for _, problem := range badImports(name, file) {
			t.Error(problem)
		}
	})
	for from := range allowed {
		if _, err := os.Stat(from); err != nil {
			t.Errorf("the table names %s, and there is no such package", from)
		}
	}
}

func TestPurity(t *testing.T) {
	seen := map[string]bool{}
	sources(t, func(name string, file *ast.File) {
		i := slices.IndexFunc(pure, func(p string) bool { return strings.HasPrefix(name, p) })
		if i < 0 {
			return
		}
		seen[pure[i]] = true
		for _, problem := range impurities(name, file) {
			t.Error(problem)
		}
	})
	for _, p := range pure {
		if !seen[p] {
			t.Errorf("%s is said to be pure, and there is no such file", p)
		}
	}
}

// badImports tells what the table does not allow.
func badImports(name string, file *ast.File) (problems []string) {
	from := path.Dir(name)
	may, known := allowed[from]
	if !known {
		problems = append(problems, fmt.Sprintf("%s: the package %s is not in the table", name, from))
	}
	for _, i := range file.Imports {
		if to, ours := strings.CutPrefix(unquote(i), module); ours && !slices.Contains(may, to) {
			problems = append(problems, fmt.Sprintf("%s imports %s, which the table does not allow", name, to))
		}
	}
	return problems
}

// impure packages have no place in a pure file at all. "os" stands for "os/signal" too.
var impure = []string{
	"sync", "os", "net", "io/fs", "io/ioutil", "syscall", "context", "runtime", "unsafe", "hash/maphash",
	"crypto/rand", "math/rand", "golang.org/x/sys", "golang.org/x/sync",
}

// impureNames of a package have none; of math/rand/v2 all have none but those that make and hold a seeded source.
var (
	impureNames = map[string][]string{
		"time": {"Now", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Since", "Until"},
	}
	seeded = []string{"Rand", "New", "NewPCG", "NewChaCha8", "PCG", "ChaCha8", "Source"}
)

const chance = "math/rand/v2"

// impurities tells what a pure file must not do.
func impurities(name string, file *ast.File) (problems []string) {
	bad := func(format string, args ...any) { problems = append(problems, name+" "+fmt.Sprintf(format, args...)) }
	called := map[string]string{} // The name in the file to the package.
	for _, i := range file.Imports {
		p := unquote(i)
		local := path.Base(p)
		if p == chance {
			local = "rand"
		}
		if i.Name != nil {
			local = i.Name.Name
		}
		called[local] = p
		if local == "." {
			bad("imports %s into its own names", p)
		}
		if p != chance && slices.ContainsFunc(impure, func(x string) bool { return p == x || strings.HasPrefix(p, x+"/") }) {
			bad("imports %s", p)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			bad("starts a goroutine")
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok {
				return true
			}
			p := called[x.Name]
			if slices.Contains(impureNames[p], n.Sel.Name) || p == chance && !slices.Contains(seeded, n.Sel.Name) {
				bad("uses %s.%s", p, n.Sel.Name)
			}
		}
		return true
	})
	return problems
}

// TestTheChecksFail: a check that has never failed proves nothing.
func TestTheChecksFail(t *testing.T) {
	for _, c := range []struct{ name, source, want string }{
		{"kv/x.go", `import "github.com/kvdstore/kvd/cache"`, "imports cache"},
		{"replica/x.go", `import "github.com/kvdstore/kvd/storage"`, "imports storage"},
		{"surprise/x.go", ``, "is not in the table"},
		{"replica/x.go", `import "sync/atomic"`, "imports sync/atomic"},
		{"replica/x.go", `import "os/signal"`, "imports os/signal"},
		{"replica/x.go", `import "math/rand"`, "imports math/rand"},
		{"replica/x.go", `import "time"; var _ = time.Now()`, "uses time.Now"},
		{"replica/x.go", `import clock "time"; var _ = clock.Now`, "uses time.Now"},
		{"replica/x.go", `import . "time"; var _ = Now`, "into its own names"},
		{"replica/x.go", `import "math/rand/v2"; var _ = rand.IntN(3)`, "uses math/rand/v2.IntN"},
		{"replica/x.go", `func f() { go f() }`, "starts a goroutine"},
		{"replica/x.go", `import ("time"; "math/rand/v2"); var _ = rand.New(rand.NewPCG(1, 2)); const _ = time.Second`, ""},
		{"node/x.go", `import "github.com/kvdstore/kvd/shard"`, ""},
	} {
		file, err := parser.ParseFile(token.NewFileSet(), c.name, "package x\n"+c.source, 0)
		require.NoError(t, err)
		problems := strings.Join(badImports(c.name, file), "\n")
		if strings.HasPrefix(c.name, "replica/") {
			problems += strings.Join(impurities(c.name, file), "\n")
		}
		if c.want == "" {
			require.Empty(t, problems, c.source)
		} else {
			require.Contains(t, problems, c.want, c.source)
		}
	}
}

func unquote(i *ast.ImportSpec) string {
	name, _ := strconv.Unquote(i.Path.Value)
	return name
}
