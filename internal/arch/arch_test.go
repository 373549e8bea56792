package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// allowed lists, for a folder and all below it, which of Cordon's own
// packages may be imported. The longest matching folder decides. Stages meet
// on the bus and in fleet; only the composition root and the command line
// import everything.
var allowed = map[string][]string{
	"":                     {"internal/cli"},
	"internal/fleet":       {},
	"internal/bus":         {"internal/fleet"},
	"internal/store":       {"internal/fleet"},
	"internal/identity":    {"internal/fleet", "internal/bus"},
	"internal/operator":    {"internal/fleet", "internal/bus", "internal/seal"},
	"internal/command":     {"internal/fleet"},
	"internal/seal":        {},
	"internal/agent":       {"internal/fleet", "internal/bus", "internal/command"},
	"internal/simulate":    {"internal/fleet", "internal/bus", "internal/agent"},
	"ingest":               {"internal/fleet", "internal/bus", "internal/store", "ingest"},
	"ingest/codec":         {"internal/fleet"},
	"ingest/gate":          {"internal/fleet", "internal/bus", "internal/identity"},
	"detect":               {"internal/fleet", "internal/bus", "internal/store", "detect"},
	"detect/rule":          {"internal/fleet", "detect/rule", "detect/sigma", "detect/threshold"},
	"detect/sigma":         {"internal/fleet"},
	"detect/threshold":     {"internal/fleet", "detect/rule"},
	"detect/baseline":      {"internal/fleet", "detect/rule", "detect/wire"},
	"detect/joint":         {"internal/fleet", "detect/wire"},
	"detect/engine":        {"internal/fleet", "detect/rule", "detect/threshold", "detect/baseline", "detect/joint", "detect/wire"},
	"detect/replay":        {"internal/fleet", "detect"},
	"alert":                {"internal/fleet", "internal/bus"},
	"web":                  {"internal/fleet", "internal/bus", "internal/store", "internal/identity", "internal/operator", "internal/seal", "web"},
	"internal/bench":       {"internal/fleet", "internal/bus", "internal/store", "internal/agent", "internal/identity", "ingest"},
	"internal/app":         {"*"},
	"internal/cli":         {"*"},
	"internal/e2e":         {"internal/fleet", "internal/bus", "internal/agent", "internal/identity", "internal/simulate"},
	"internal/arch":        {},
	"ingest/gate/gatetest": {"internal/fleet", "internal/bus", "internal/identity", "ingest/gate"},
}

// onlyIn keeps a library in the one part that may know it.
var onlyIn = map[string][]string{
	"github.com/gin-gonic/gin":       {"web/api"},
	"github.com/danielgtaylor/huma":  {"web/api"},
	"github.com/ClickHouse":          {"internal/store"},
	"github.com/pressly/goose":       {"internal/store"},
	"github.com/ebitengine/purego":   {"internal/store"},
	"github.com/nats-io/nats-server": {"internal/bus"},
	"github.com/nats-io/jwt":         {"ingest/gate"},
	"github.com/alecthomas/kong":     {"internal/cli"},
	"cel.dev/cel-go":                 {"detect"},
	"github.com/standard-webhooks":   {"alert/notify", "internal/simulate"},
	"github.com/shirou/gopsutil":     {"internal/agent"},
	"github.com/leodido/go-syslog":   {"ingest/codec"},
}

// pure packages decide; they do no I/O, read no clock and start nothing.
var pure = []string{"internal/fleet", "ingest/codec", "detect/rule", "detect/sigma", "detect/threshold", "detect/baseline", "detect/joint", "detect/engine", "detect/wire"}

var impureImports = []string{"os", "net", "net/http", "os/exec", "io/ioutil", "log", "github.com/nats-io/nats.go"}

var impureCalls = []string{"time.Now", "time.Since", "time.Sleep", "time.After", "time.NewTimer", "time.NewTicker", "rand.Int", "rand.Float64"}

type source struct {
	folder string // of the package, relative to the root; "" for the root
	path   string
	file   *ast.File
	test   bool
}

func sources(t *testing.T) []source {
	t.Helper()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	var all []source
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			name := entry.Name()
			if name == "node_modules" || name == "testdata" || name == "ui" || strings.HasPrefix(name, ".") && path != root {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		if folder == "." {
			folder = ""
		}
		all = append(all, source{folder: filepath.ToSlash(folder), path: path, file: file, test: strings.HasSuffix(path, "_test.go")})
		return nil
	})
	require.NoError(t, err)
	require.NotEmpty(t, all)
	return all
}

func within(folder, parent string) bool {
	return folder == parent || strings.HasPrefix(folder, parent+"/")
}

func rule(folder string) (string, []string, bool) {
	for f := folder; ; f = parentOf(f) {
		if list, ok := allowed[f]; ok {
			return f, list, f != "" || folder == ""
		}
		if f == "" {
			return "", nil, false
		}
	}
}

func parentOf(folder string) string {
	if i := strings.LastIndexByte(folder, '/'); i >= 0 {
		return folder[:i]
	}
	return ""
}

func TestImports_followTheAllowList(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue // tests may build on the parts they need
		}
		parent, list, ok := rule(s.folder)
		require.True(t, ok, "%s: folder has no row in the allow-list", s.path)
		for _, imp := range s.file.Imports {
			path, err := strconv.Unquote(imp.Path.Value)
			require.NoError(t, err)
			target, own := strings.CutPrefix(path, "cordon/")
			if !own {
				continue
			}
			good := slices.Contains(list, "*") || within(target, s.folder) && s.folder != "" || parent != "" && within(s.folder, parent) && within(target, parent) && parent != "alert"
			for _, a := range list {
				good = good || within(target, a)
			}
			require.True(t, good, "%s imports cordon/%s; %q may import %v", s.path, target, parent, list)
		}
	}
}

func TestLibraries_stayWhereTheyBelong(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, imp := range s.file.Imports {
			path, err := strconv.Unquote(imp.Path.Value)
			require.NoError(t, err)
			for library, folders := range onlyIn {
				if path != library && !strings.HasPrefix(path, library+"/") {
					continue
				}
				ok := slices.ContainsFunc(folders, func(f string) bool { return within(s.folder, f) })
				require.True(t, ok, "%s imports %s, which belongs to %v", s.path, path, folders)
			}
		}
	}
}

func TestPurePackages_readNoClockAndDoNoIO(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || !slices.Contains(pure, s.folder) {
			continue
		}
		for _, imp := range s.file.Imports {
			path, err := strconv.Unquote(imp.Path.Value)
			require.NoError(t, err)
			require.NotContains(t, impureImports, path, "%s", s.path)
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s starts a goroutine", s.path)
			case *ast.CallExpr:
				sel, ok := n.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if pkg, ok := sel.X.(*ast.Ident); ok && slices.Contains(impureCalls, pkg.Name+"."+sel.Sel.Name) {
					t.Errorf("%s calls %s.%s", s.path, pkg.Name, sel.Sel.Name)
				}
			}
			return true
		})
	}
}

func TestPackages_sayWhatTheyAreFor(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		if !s.test {
			documented[s.folder] = documented[s.folder] || s.file.Doc != nil
		}
	}
	for folder, ok := range documented {
		require.True(t, ok, "package in %q has no package comment", folder)
	}
}

func TestRepository_hasItsPapers(t *testing.T) {
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	for _, name := range []string{"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "compose.yaml", "Makefile"} {
		_, err := os.Stat(filepath.Join(root, name))
		require.NoError(t, err, name)
	}
}
