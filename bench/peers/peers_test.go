package peers

import (
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/bench/echo"
	"github.com/kvdstore/kvd/bench/local"
)

// TestAwaitServing: a store serves when its last server does, whichever that is.
func TestAwaitServing(t *testing.T) {
	p, err := local.StartProcess("peer", filepath.Join(t.TempDir(), "log"), "sleep", "60")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, local.StopAll([]*local.Process{p})) })
	for late := range 3 {
		list, err := local.FreePorts(3, 0)
		require.NoError(t, err)
		serve := func(e string) {
			lis, err := net.Listen("tcp", e)
			if err != nil {
				t.Error(err)
				return
			}
			s := echo.New()
			t.Cleanup(s.Stop)
			go func() { _ = s.Serve(lis) }()
		}
		for i, e := range list {
			if i != late {
				serve(e)
			}
		}
		var up atomic.Bool
		timer := time.AfterFunc(300*time.Millisecond, func() {
			up.Store(true)
			serve(list[late])
		})
		defer timer.Stop()
		s := &Store{Name: "echo-3", Kind: "echo", Endpoints: list, processes: []*local.Process{p}}
		require.NoError(t, s.awaitServing(t.Context()))
		require.True(t, up.Load(), "server %d", late)
	}
}
