package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/internal/test"
	"github.com/kvdstore/kvd/jepsen/workload"
	"github.com/kvdstore/kvd/kv"
)

// left gives the keys that a verification has written and not deleted.
func left(t *testing.T, cl *client.Client) (keys []string) {
	for item, err := range cl.Scan(t.Context(), client.ScanOptions{Span: kv.PrefixSpan([]byte("kvcli-verify/")), KeysOnly: true}) {
		require.NoError(t, err)
		keys = append(keys, string(item.Key))
	}
	return keys
}

// TestVerifyInterrupted: who interrupts a verification gets no verdict, and finds nothing left of it.
func TestVerifyInterrupted(t *testing.T) {
	cluster := test.New(t, 1)
	cluster.StartAll()
	cl, err := client.New(client.Config{Endpoints: cluster.Addresses()})
	require.NoError(t, err)
	defer cl.Close()
	v := &verification{
		client: cl, prefix: verifyPrefix(), workloads: workload.Names(), load: time.Hour, rate: 200, timeout: 5 * time.Second, progress: newProgress(),
	}
	require.NoError(t, v.validate())
	ctx, interrupt := context.WithCancel(t.Context())
	var verdicts []*workload.Verdict
	ended := make(chan error)
	go func() {
		var err error
		verdicts, err = v.run(ctx)
		ended <- err
	}()
	require.Eventually(t, func() bool { return len(left(t, cl)) > 50 }, time.Minute, 10*time.Millisecond)
	interrupt()
	err = judged(verdicts, <-ended)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, exitNotDone, exitCode(err))
	require.Empty(t, left(t, cl))
}

// TestVerifyCannotRun: what one workload had written is gone when another cannot go on, and what was there before is not; and
// who was answered nothing knows nothing.
func TestVerifyCannotRun(t *testing.T) {
	cluster := test.New(t, 1)
	cluster.StartAll()
	cl, err := client.New(client.Config{Endpoints: cluster.Addresses()})
	require.NoError(t, err)
	defer cl.Close()
	v := &verification{
		client: cl, prefix: verifyPrefix(), workloads: []string{"scan", "bank"}, load: time.Hour, rate: 100, timeout: 5 * time.Second, progress: newProgress(),
	}
	there := v.prefix + "bank/another's"
	_, err = cl.Put(t.Context(), []byte(there), nil)
	require.NoError(t, err)
	verdicts, err := v.run(t.Context())
	require.ErrorContains(t, judged(verdicts, err), "bank: prefix: one that no key has")
	require.Equal(t, []string{there}, left(t, cl))

	require.NoError(t, judged([]*workload.Verdict{{Valid: true, OK: 1}}, nil))
	err = judged([]*workload.Verdict{{Workload: "bank", Valid: true, Operations: 7}}, nil)
	require.ErrorContains(t, err, "bank: none of 7 operations was answered")
	require.Equal(t, exitNotDone, exitCode(err))
	undecided := &workload.Verdict{Workload: "scan", OK: 1, Violations: []check.Violation{{Rule: check.TimedOut}}}
	require.Equal(t, "undecided", verdictWord(undecided))
	require.Equal(t, exitNotDone, exitCode(judged([]*workload.Verdict{undecided}, nil)))
	undecided.Violations = append(undecided.Violations, check.Violation{Rule: check.LostWrite})
	require.Equal(t, exitNo, exitCode(judged([]*workload.Verdict{undecided}, nil)))
}

// TestVerifyCleansAll: what one workload has left is deleted also if another's cannot be.
func TestVerifyCleansAll(t *testing.T) {
	cluster := test.New(t, 1)
	cluster.StartAll()
	var clients []*client.Client
	var runs []*workload.Run
	for _, name := range []string{"bank", "scan"} {
		cl, err := client.New(client.Config{Endpoints: cluster.Addresses()})
		require.NoError(t, err)
		defer cl.Close()
		r, err := workload.New(workload.Config{
			Name: name, Prefix: "kvcli-verify/x/" + name + "/", Processes: 4, Rate: 1, Timeout: 5 * time.Second, Clients: []*client.Client{cl}, Recorder: check.NewRecorder(),
		})
		require.NoError(t, err)
		require.NoError(t, r.Setup(t.Context()))
		clients, runs = append(clients, cl), append(runs, r)
	}
	of := func(name string) int {
		return len(slices.DeleteFunc(left(t, clients[1]), func(key string) bool { return !strings.Contains(key, name) }))
	}
	require.NotZero(t, of("/bank/"))
	require.NotZero(t, of("/scan/"))
	require.NoError(t, clients[0].Close())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- (&verification{prefix: "kvcli-verify/x/"}).clean(ctx, runs) }()
	require.Eventually(t, func() bool { return of("/scan/") == 0 }, 20*time.Second, 10*time.Millisecond)
	cancel()
	require.ErrorContains(t, <-ended, "keys may be left")
	require.NotZero(t, of("/bank/"))
}

// TestVerifyUndecided: that it could not be found out has one exit code, whatever the operations say of themselves; it is no
// verdict, also if a workload was judged by then.
func TestVerifyUndecided(t *testing.T) {
	verdicts := []*workload.Verdict{{Workload: "set", Valid: true, OK: 1}}
	for _, err := range []error{client.ErrUnknown, client.ErrNotDone, &kv.CrossShardError{}, &kv.InvalidError{Field: "value", Bound: "a number"}} {
		require.Equal(t, exitNotDone, exitCode(judged(verdicts, fmt.Errorf("set: set up: %w", err))), "%v", err)
	}
	require.Equal(t, exitUsage, exitCode(judged(nil, &kv.InvalidError{Field: "timeout", Bound: "up to a minute"})))
	idle := []*workload.Verdict{{Workload: "set", Valid: true, OK: 1, Undone: []string{"cas"}}}
	require.Equal(t, "undecided", verdictWord(idle[0]))
	require.ErrorContains(t, judged(idle, nil), "not one cas was done")
	require.Equal(t, exitNotDone, exitCode(judged(idle, nil)))

	for _, given := range []struct {
		valid    bool
		verdicts []*workload.Verdict
		err      error
	}{{true, verdicts, nil}, {false, verdicts, errors.New("not all was read back")}, {false, idle, nil}, {false, append(verdicts, nil), errors.New("no leader")}} {
		var out bytes.Buffer
		cmd := &cobra.Command{}
		cmd.SetOut(&out)
		require.NoError(t, (&cli{output: "json"}).printVerdicts(cmd, &verification{workloads: []string{"set"}}, given.verdicts, given.err))
		var told verifyJSON
		require.NoError(t, json.Unmarshal(out.Bytes(), &told))
		require.Equal(t, given.valid, told.Valid)
	}
}

// TestVerifyInvalid: a verdict of wrong histories is told with its reasons, and as pages; it stands also when keys were left.
func TestVerifyInvalid(t *testing.T) {
	f, err := os.Open("../../jepsen/workload/testdata/register/stale-read.jsonl")
	require.NoError(t, err)
	defer f.Close()
	events, err := check.ReadEvents(f)
	require.NoError(t, err)
	verdict, err := workload.Judge("register", events)
	require.NoError(t, err)
	v := &verification{prefix: "p/", workloads: []string{"register"}, out: t.TempDir()}
	require.NoError(t, v.keep(&verdict, events))
	page, err := os.ReadFile(filepath.Join(v.out, "register-1.html"))
	require.NoError(t, err)
	require.Contains(t, string(page), "<html")
	for _, err := range []error{nil, errors.New("keys were left")} {
		require.Equal(t, exitNo, exitCode(judged([]*workload.Verdict{&verdict, nil}, err)))
	}
	out := verdictOf(&verdict)
	require.False(t, out.Valid)
	require.Equal(t, "revision went back", out.Violations[0].Rule)
	require.Equal(t, "r/00/0", out.Violations[0].Key)
	require.Contains(t, out.Violations[0].Text, "revision 4 after 7 had been returned")
}
