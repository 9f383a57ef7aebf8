package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/backup"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/internal/test"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/snapshot/pairs"
)

// writeBackup writes a backup of one part.
func writeBackup(t *testing.T, h *kvdv1.BackupHeader, items map[string]kv.Record, keys ...string) string {
	path := filepath.Join(t.TempDir(), "backup")
	w, err := backup.Create(path, h)
	require.NoError(t, err)
	require.NoError(t, w.Begin(kv.Span{}, &kvdv1.ShardInfo{}))
	b := pairs.New(0)
	for _, key := range keys {
		b = pairs.Append(b, []byte(key), items[key])
	}
	sum, all := xxhash.Sum64(b), xxhash.New()
	_, _ = all.Write([]byte{byte(sum >> 56), byte(sum >> 48), byte(sum >> 40), byte(sum >> 32), byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
	require.NoError(t, w.Pairs(b, sum))
	require.NoError(t, w.End(uint64(len(keys)), all.Sum64()))
	require.NoError(t, w.Close())
	return path
}

// stdoutOf runs kvcli, and gives what it writes on standard output.
func stdoutOf(t *testing.T, args ...string) (code int, out string) {
	name := filepath.Join(t.TempDir(), "out")
	f, err := os.Create(name)
	require.NoError(t, err)
	before := os.Stdout
	os.Stdout = f
	code = run(args)
	os.Stdout = before
	require.NoError(t, f.Close())
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	return code, string(text)
}

// TestRestore: a key that has expired since is not written, another keeps its moment to the millisecond; what the cluster
// refuses of settings and rules is told by the exit code, after the keys were written.
func TestRestore(t *testing.T) {
	cluster := test.New(t, 1)
	cluster.StartAll()
	endpoint := cluster.Addresses()[0]
	later := time.Now().Add(time.Hour).UnixMilli()
	path := writeBackup(t, &kvdv1.BackupHeader{
		BackupId: 1, Settings: []*kvdv1.SettingValue{{Name: "no such setting", Value: "1"}}, Rules: []*kvdv1.Rule{{Prefix: []byte("eu/"), Regions: []string{"nowhere"}}},
	}, map[string]kv.Record{
		"gone": {Value: []byte("x"), ExpireAt: time.Now().Add(-time.Second).UnixMilli()}, "later": {Value: []byte("y"), ExpireAt: later}, "stays": {Value: []byte{0}},
	}, "gone", "later", "stays")
	code, out := stdoutOf(t, "--endpoints", endpoint, "backup", "restore", path)
	require.Equal(t, exitUsage, code)
	require.True(t, strings.HasPrefix(out, path+": 2 keys restored, 1 expired since, 0 refused, 0 unknown, in "), out)
	cl, err := client.New(client.Config{Endpoints: []string{endpoint}})
	require.NoError(t, err)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var items []client.Item
	for item, err := range cl.Scan(ctx, client.ScanOptions{}) {
		require.NoError(t, err)
		items = append(items, item)
	}
	require.Len(t, items, 2)
	require.Equal(t, "later", string(items[0].Key))
	require.Equal(t, later, items[0].Record.ExpireAt)
	require.Equal(t, []byte{0}, items[1].Record.Value)

	code, _ = stdoutOf(t, "--endpoints", endpoint, "backup", "restore", path, "--force", "--data-only")
	require.Equal(t, exitDone, code)
}
