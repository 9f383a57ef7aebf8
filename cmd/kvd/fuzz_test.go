package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

// FuzzInitialCluster: a list is refused by name, or is of few nodes with names and addresses of their own, which are
// read from it as they are written.
func FuzzInitialCluster(f *testing.F) {
	for _, list := range []string{"", "n1=h:1", "n1=h:1, n2=[::1]:2,", "n1=h:1,n1=h:2", "n1=h:1,n2=h:1", "=h:1", "n=h:99999", "n==h:1", "a=h:+1"} {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, list string) {
		nodes, err := parseCluster(list)
		if err != nil {
			var invalid *kv.InvalidError
			require.ErrorAs(t, err, &invalid)
			require.Equal(t, "initial-cluster", invalid.Field)
			return
		}
		require.LessOrEqual(t, len(nodes), kv.FoundingNodesMax)
		seen, parts := map[string]bool{}, []string{}
		for _, n := range nodes {
			require.True(t, n.Name != "" && plainName(n.Name), n.Name)
			_, port, ok := address(n.Address)
			require.True(t, ok && port > 0, n.Address)
			require.False(t, seen[n.Name] || seen["="+n.Address], "%v twice", n)
			seen[n.Name], seen["="+n.Address] = true, true
			parts = append(parts, n.Name+"="+n.Address)
		}
		again, err := parseCluster(strings.Join(parts, ","))
		require.NoError(t, err)
		require.Equal(t, nodes, again)
	})
}

// FuzzMemory: a size is within its bounds, or refused.
func FuzzMemory(f *testing.F) {
	for _, text := range []string{"64MiB", "65536 KiB", "1GiB", "100000000", "-1", "1e9", "99999999999GiB", "9223372036854775807KiB", "1MiB"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := parseMemory(text)
		if err != nil {
			require.ErrorAs(t, err, new(*kv.InvalidError))
			return
		}
		require.True(t, n >= memoryMin && n <= 1<<50, n)
	})
}

// FuzzConfigFile: whatever a file holds, it is refused with its name or the key's, or gives settings within their bounds.
func FuzzConfigFile(f *testing.F) {
	f.Add("name: n1\nmemory: 64MiB\nreplicas: 3\n")
	f.Add("listen: 127.0.0.1:1\ninitial-cluster: n1=h:1,n2=h:2\ninitial-shards: 4\nhttp: \"\"\nlog-level: debug\n")
	f.Add("name: n1\nreplicas: 0\n")
	f.Add("name: [a]\n")
	f.Add("nmae: x\n")
	f.Add("replicas: 1e0\nregion: {a: b}\n")
	f.Add("a.b: c\n\"\": d\n")
	path := filepath.Join(f.TempDir(), "config.yaml")
	f.Fuzz(func(t *testing.T, text string) {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		flags := pflag.NewFlagSet("kvd", pflag.ContinueOnError)
		defineFlags(flags)
		require.NoError(t, flags.Parse([]string{"--config", path}))
		s, err := loadSettings(flags, nil)
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		require.True(t, s.replicas >= 1 && s.replicas <= raftmeta.ReplicasMax)
		require.Less(t, len(s.cuts), raftmeta.InitialShardsMax)
		require.True(t, s.memory >= memoryMin)
		require.True(t, s.name != "" && plainName(s.name) && plainName(s.region))
		require.NotEmpty(t, s.dataDir)
		for _, at := range []string{s.listen, s.advertise} {
			_, _, ok := address(at)
			require.True(t, ok, at)
		}
	})
}

// FuzzInitialShards: a file of keys gives first keys in their order, each once and within its bounds.
func FuzzInitialShards(f *testing.F) {
	for _, text := range []string{"", "b\na\n", "a\r\na\r\n", "hex:00\nbase64:AA==\n", "\\x0", "a\n\nb"} {
		f.Add("file", text)
	}
	for _, spec := range []string{"0", "1", "256", "-1", "geohash1", "99999999999999999999"} {
		f.Add(spec, "")
	}
	f.Fuzz(func(t *testing.T, spec, text string) {
		cuts, err := raftmeta.InitialCuts(spec, func(string) ([]byte, error) {
			if text == "" {
				return nil, errors.New("there is no such file")
			}
			return []byte(text), nil
		})
		if err != nil {
			require.ErrorContains(t, err, "initial-shards")
			return
		}
		require.Less(t, len(cuts), raftmeta.InitialShardsMax)
		for i, key := range cuts {
			require.NoError(t, kv.CheckKey("initial-shards", key))
			if i > 0 {
				require.Less(t, string(cuts[i-1]), string(key))
			}
		}
	})
}

// FuzzJoin: a list is refused by name, or is of few addresses that can be called, each once.
func FuzzJoin(f *testing.F) {
	for _, list := range []string{"", "h:1", "h:1, [::1]:2,", "h:1,h:1", ":1", "h:0", "h:99999", "n=h:1", "h"} {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, list string) {
		members, err := parseMembers(list)
		if err != nil {
			var invalid *kv.InvalidError
			require.ErrorAs(t, err, &invalid)
			require.Equal(t, "join", invalid.Field)
			return
		}
		require.LessOrEqual(t, len(members), kv.FoundingNodesMax)
		for _, at := range members {
			host, port, ok := address(at)
			require.True(t, ok && port > 0 && host != "", at)
		}
		again, err := parseMembers(strings.Join(members, ","))
		require.NoError(t, err)
		require.Equal(t, members, again)
	})
}

// FuzzEnvironment: whatever the environment and the command line say, the name of what is wrong is told, or the settings are
// within their bounds; the command line wins.
func FuzzEnvironment(f *testing.F) {
	for _, c := range [][4]string{
		{"KVD_NAME", "n1", "--replicas", "3"}, {"KVD_MEMORY", "1", "--memory", "64MiB"}, {"KVD_LISTEN", "x", "--listen", "127.0.0.1:1"},
		{"KVD_TEST_DIR", "/tmp", "--region", "r"}, {"KVD_", "", "--", ""}, {"KVD_LOG_LEVEL", "debug", "--log-level", "loud"}, {"KVD_CONFIG", "/", "--http", ""},
	} {
		f.Add(c[0], c[1], c[2], c[3])
	}
	f.Fuzz(func(t *testing.T, name, value, flag, given string) {
		if strings.Contains(strings.ToLower(name), "config") || strings.Contains(flag, "config") || strings.Contains(strings.ToLower(name), "shards") || strings.Contains(flag, "shards") {
			return // Files of the machine are not to be read.
		}
		flags := pflag.NewFlagSet("kvd", pflag.ContinueOnError)
		flags.SetOutput(io.Discard)
		defineFlags(flags)
		if flags.Parse([]string{flag, given}) != nil {
			return
		}
		s, err := loadSettings(flags, []string{name + "=" + value})
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		require.True(t, s.replicas >= 1 && s.replicas <= raftmeta.ReplicasMax)
		require.True(t, s.memory >= memoryMin)
		require.True(t, s.name != "" && plainName(s.name) && plainName(s.region))
		if flags.Changed("name") {
			text, err := flags.GetString("name")
			require.NoError(t, err)
			if text != "" {
				require.Equal(t, text, s.name)
			}
		}
	})
}
