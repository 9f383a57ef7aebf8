package kvd_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
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
	"kv":            {},
	"api/kvd/v1":    {},
	"api/wire":      {"kv", "api/kvd/v1"},
	"storage":       {"kv", "api/kvd/v1"},
	"cache":         {"kv"},
	"geo":           {"kv"},
	"replica":       {"kv", "api/kvd/v1"},
	"shard":         {"kv", "api/kvd/v1", "api/wire"},
	"raftmeta":      {"kv", "api/kvd/v1", "api/wire"},
	"snapshot":      {"kv", "api/kvd/v1", "storage"},
	"node":          {"kv", "api/kvd/v1", "api/wire", "storage", "cache", "replica", "shard", "raftmeta", "snapshot"},
	"transport":     {"kv", "api/kvd/v1", "api/wire"},
	"server":        {"kv", "api/kvd/v1", "api/wire", "node"},
	"client/route":  {"kv"},
	"client":        {"kv", "api/kvd/v1", "api/wire", "client/route"},
	"check":         {"kv"},
	"sim":           {"kv", "api/kvd/v1", "storage", "cache", "shard", "raftmeta", "node", "check"},
	"cmd/kvd":       {"kv", "raftmeta", "node", "server", "transport"},
	"cmd/kvcli":     {"kv", "api/kvd/v1", "api/wire", "client", "geo"},
	"internal/test": {"kv", "api/kvd/v1", "api/wire", "node", "server", "transport", "client"},
}

// pure lists what starts no goroutine, takes no lock, reads no clock, draws nothing by chance and does no I/O: whole
// packages, or files of one.
var pure = []string{
	"replica/", "shard/", "raftmeta/", "node/core.go", "node/group.go", "node/upkeep.go", "node/checksum.go", "node/snapshots.go",
	"node/load.go", "node/found.go", "client/route/",
}

// sources calls f with every source file that is no test and was not generated.
func sources(t *testing.T, f func(name string, file *ast.File)) {
	require.NoError(t, filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "scratch") {
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

func TestImports(t *testing.T) {
	sources(t, func(name string, file *ast.File) {
		from := path.Dir(name)
		may, known := allowed[from]
		if !known {
			t.Errorf("%s: the package %s is not in the table", name, from)
		}
		for _, i := range file.Imports {
			if to, ours := strings.CutPrefix(unquote(i), module); ours && !slices.Contains(may, to) {
				t.Errorf("%s imports %s, which the table does not allow", name, to)
			}
		}
	})
}

func TestPurity(t *testing.T) {
	forbidden := map[string][]string{
		"time": {"Now", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Since", "Until"},
	}
	packages := []string{"sync", "sync/atomic", "os", "net", "io/fs", "crypto/rand", "math/rand", "context"}
	sources(t, func(name string, file *ast.File) {
		if !slices.ContainsFunc(pure, func(p string) bool { return strings.HasPrefix(name, p) }) {
			return
		}
		for _, i := range file.Imports {
			if slices.Contains(packages, unquote(i)) {
				t.Errorf("%s imports %s", name, unquote(i))
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s starts a goroutine", name)
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && slices.Contains(forbidden[x.Name], n.Sel.Name) {
					t.Errorf("%s calls %s.%s", name, x.Name, n.Sel.Name)
				}
			}
			return true
		})
	})
}

func unquote(i *ast.ImportSpec) string {
	name, _ := strconv.Unquote(i.Path.Value)
	return name
}
