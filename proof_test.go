package kvd_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	quoted   = regexp.MustCompile("`([^`]+)`")
	aTest    = regexp.MustCompile(`^(Test|Fuzz)[A-Z]\w*$`)
	aMutant  = regexp.MustCompile(`^mutant_\w+$`)
	aStory   = regexp.MustCompile("(?m)^\t([A-Z][A-Za-z]+)( Story = (?:iota|[0-9]+))?$")
	stories  = regexp.MustCompile("stor(?:y|ies) (`[^`]+`(?: and `[^`]+`)*)")
	declared = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Z]\w*)\(`)
	tagged   = regexp.MustCompile(`(?m)^//go:build (mutant_\w+)$`)
)

// TestProofNames: what docs/proof.md names as proof is there: tests, mutants and stories. Every mutant is named.
func TestProofNames(t *testing.T) {
	page, err := os.ReadFile("docs/proof.md")
	require.NoError(t, err)
	there, mutants := map[string]bool{}, map[string]bool{}
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		code, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, "_test.go") {
			for _, m := range declared.FindAllStringSubmatch(string(code), -1) {
				there[m[1]] = true
			}
		}
		for _, m := range tagged.FindAllStringSubmatch(string(code), -1) {
			there[m[1]], mutants[m[1]] = true, true
		}
		return nil
	}))
	code, err := os.ReadFile("sim/stories.go")
	require.NoError(t, err)
	for _, m := range aStory.FindAllStringSubmatch(string(code), -1) {
		there["story "+m[1]] = true
	}
	named := map[string]bool{}
	for _, m := range quoted.FindAllStringSubmatch(string(page), -1) {
		name := m[1]
		named[name] = true
		if (aTest.MatchString(name) || aMutant.MatchString(name)) && !there[name] {
			t.Errorf("docs/proof.md names %s, which does not exist", name)
		}
	}
	for _, list := range stories.FindAllStringSubmatch(string(page), -1) {
		for _, m := range quoted.FindAllStringSubmatch(list[1], -1) {
			if !there["story "+m[1]] {
				t.Errorf("docs/proof.md names the story %s, which does not exist", m[1])
			}
		}
	}
	for name := range mutants {
		if !named[name] {
			t.Errorf("docs/proof.md does not name %s", name)
		}
	}
}
