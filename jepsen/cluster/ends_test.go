package cluster

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEnds: a process that ends although nobody asked is a surprise, but for one whose disk is bad, and one that was told to
// end as by kill -9 and does so.
func TestEnds(t *testing.T) {
	const killed, failed = "kill -9 $$", "exit 1"
	for name, c := range map[string]struct {
		script        string
		fated, doomed bool
		surprise      bool
	}{
		"killed":                {script: killed, surprise: true},
		"killed as it was told": {script: killed, doomed: true},
		"failed":                {script: failed, surprise: true},
		"failed in place of it": {script: failed, doomed: true, surprise: true},
		"failed by its disk":    {script: failed, fated: true},
	} {
		t.Run(name, func(t *testing.T) {
			n := &Node{c: &Cluster{}, name: "n1"}
			n.MayEnd(c.fated)
			n.MayBeKilled(c.doomed)
			p := &process{command: exec.Command("sh", "-c", c.script), ended: make(chan struct{})}
			require.NoError(t, p.command.Start())
			n.await(p)
			require.Equal(t, c.surprise, len(n.c.Surprises()) > 0)
			require.Equal(t, 1, n.Ends())
		})
	}
}

// TestEndedByItself: a process that was killed is not one that ended by itself, nor is one that runs or that there never was.
func TestEndedByItself(t *testing.T) {
	n := &Node{c: &Cluster{}, name: "n1"}
	require.False(t, n.EndedByItself())
	run := func(script string) {
		n.run = &process{command: exec.Command("sh", "-c", script), ended: make(chan struct{})}
		require.NoError(t, n.run.command.Start())
	}
	run("exit 1")
	require.False(t, n.EndedByItself(), "nobody has heard of its end")
	n.await(n.run)
	require.True(t, n.EndedByItself())
	run("exec sleep 1000")
	go n.await(n.run)
	n.Kill()
	require.False(t, n.EndedByItself())
}
