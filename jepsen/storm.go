package main

// The overload: not a workload with a history, but a storm of operations that nobody repeats, sent to the nodes that lead
// their shards.

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/internal/wait"
	"github.com/kvdstore/kvd/jepsen/cluster"
	"github.com/kvdstore/kvd/jepsen/overload"
	"github.com/kvdstore/kvd/jepsen/workload"
)

const (
	// overloadName is what --workload calls it.
	overloadName = "overload"
	// overloadMemory is each node's --memory, and overloadCap the most that its process may have.
	overloadMemory, overloadCap = "320MiB", 448 << 20
	// overloadCPUs is what each process may use of the processors: the crowd needs more than they do.
	overloadCPUs = 0.3
	// connections to each node, each with one pipeline; keys of each of the 256 prefixes, and bytes of a value: the cluster is to
	// have as much data after the storm as before. One in readOf operations is a read.
	connections, overloadKeys, valueBytes, readOf = 8, 200, 1024, 5
	// overloadShards for each node are there from the beginning.
	overloadShards = 2
	// routesEvery is the time between two looks at who leads what, and evenMax bounds the time until every node leads as much.
	routesEvery, evenMax = 300 * time.Millisecond, 2 * time.Minute
)

// crowd are clients that repeat nothing. They use pipelines, in which a refusal costs a small part of what it costs to do what was asked:
// of single calls the HTTP/2 of those that are refused alone costs a node nearly as much as a write.
type crowd struct {
	nodes  map[uint64][]*lane
	routes atomic.Pointer[[]*kvdv1.Descriptor]
	seed   maphash.Seed
	value  []byte
	conns  []*grpc.ClientConn
}

// join connects to all nodes.
func (w *crowd) join(ctx context.Context, c *cluster.Cluster, operator *client.Client) error {
	list, err := operator.Nodes(ctx)
	if err != nil {
		return err
	}
	options := append(c.ClientOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec())))
	for _, n := range list.GetNodes() {
		for range connections {
			conn, err := grpc.NewClient("passthrough:///"+n.GetNode().GetAddress(), options...)
			if err != nil {
				return err
			}
			w.conns = append(w.conns, conn)
			l, err := newLane(ctx, conn)
			if err != nil {
				return err
			}
			w.nodes[n.GetNode().GetNode()] = append(w.nodes[n.GetNode().GetNode()], l)
		}
	}
	return w.look(ctx, operator)
}

func (w *crowd) close() {
	for _, c := range w.conns {
		_ = c.Close()
	}
}

// look asks who leads what. In the storm it may take long: the crowd goes on with what it knows.
func (w *crowd) look(ctx context.Context, operator *client.Client) error {
	resp, err := operator.Shards(ctx)
	if err != nil {
		return err
	}
	var list []*kvdv1.Descriptor
	for _, s := range resp.GetShards() {
		list = append(list, s.GetDescriptor_())
	}
	slices.SortFunc(list, func(a, b *kvdv1.Descriptor) int { return bytes.Compare(a.GetStart(), b.GetStart()) })
	w.routes.Store(&list)
	return nil
}

func (w *crowd) watch(ctx context.Context, operator *client.Client) {
	t := time.NewTicker(routesEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			_ = w.look(ctx, operator) // The next look will do.
		}
	}
}

// do does the n-th operation.
func (w *crowd) do(ctx context.Context, n int) error {
	h := maphash.Comparable(w.seed, n)
	key := fmt.Appendf(nil, "%s%02x/%d", prefix, h%256, h>>8%overloadKeys)
	l, err := w.leader(key, n)
	if err != nil {
		return err
	}
	d, err := w.ask(ctx, l, key, n)
	// Who leads another shard than the map says is not who is overloaded: a redirect is followed, once.
	if d.GetReason() == kvdv1.ErrorDetail_NOT_LEADER && len(w.nodes[d.GetLeader()]) > 0 {
		_, err = w.ask(ctx, w.nodes[d.GetLeader()][n%connections], key, n)
	}
	return err
}

func (w *crowd) ask(ctx context.Context, l *lane, key []byte, n int) (*kvdv1.ErrorDetail, error) {
	if n%readOf == 0 {
		return l.do(ctx, &kvdv1.PipelineOp{Op: &kvdv1.PipelineOp_Get{Get: &kvdv1.GetRequest{Key: key}}})
	}
	return l.do(ctx, &kvdv1.PipelineOp{Op: &kvdv1.PipelineOp_Put{Put: &kvdv1.PutRequest{Key: key, Value: w.value}}})
}

// leader gives a pipeline to the node that leads a key's shard, or to any.
func (w *crowd) leader(key []byte, n int) (*lane, error) {
	list := *w.routes.Load()
	for i := len(list) - 1; i >= 0; i-- {
		if bytes.Compare(list[i].GetStart(), key) <= 0 {
			if lanes := w.nodes[list[i].GetLeader()]; len(lanes) > 0 {
				return lanes[n%len(lanes)], nil
			}
			break
		}
	}
	for _, lanes := range w.nodes {
		return lanes[n%len(lanes)], nil
	}
	return nil, status.Error(codes.Unavailable, "there is no node")
}

// overload makes the trial.
func (h *harness) overload(ctx context.Context) error {
	binary, err := h.binary(ctx, nil)
	if err != nil {
		return err
	}
	cuts := filepath.Join(h.out, "cuts")
	if err := os.WriteFile(cuts, []byte(strings.Join(workload.Cuts(prefix, overloadShards*h.nodes), "\n")+"\n"), 0o644); err != nil {
		return err
	}
	c, err := cluster.Start(ctx, cluster.Config{
		Nodes: h.nodes, Dir: filepath.Join(h.out, "nodes"), Binary: binary, Namespaces: h.namespaced, MemoryBytes: overloadCap, CPUs: overloadCPUs,
		Flags: []string{"--memory", overloadMemory, "--initial-shards", cuts},
	})
	if err != nil {
		return err
	}
	defer func() { _ = c.Stop() }()
	figures, err := h.storm(ctx, c)
	wrong := append(c.Surprises(), first(outcries(logs(c)))...)
	if err != nil && len(wrong) > 0 && ctx.Err() == nil {
		return fmt.Errorf("%w: %s; and then: %w; logs: %s", errInvalid, strings.Join(wrong, "; "), err, h.out)
	}
	if err != nil {
		return err
	}
	reasons := append(figures.Reasons(), wrong...)
	if err := c.Stop(); err != nil {
		reasons = append(reasons, err.Error())
	}
	peaks := map[string]int64{}
	for _, n := range c.Nodes() {
		peaks[n.Name()] = n.PeakMemory()
	}
	if err := h.tellStorm(figures, reasons, peaks); err != nil {
		return err
	}
	if len(reasons) > 0 {
		return fmt.Errorf("%w: %s; logs: %s", errInvalid, strings.Join(reasons, "; "), h.out)
	}
	return nil
}

// storm drives the cluster.
func (h *harness) storm(ctx context.Context, c *cluster.Cluster) (*overload.Figures, error) {
	operator, err := client.New(client.Config{Endpoints: c.Endpoints(), DialOptions: c.ClientOptions()})
	if err != nil {
		return nil, err
	}
	defer operator.Close()
	if err := evenLeaders(ctx, operator, h.nodes); err != nil {
		return nil, err
	}
	// The balance hands leaderships over, and the crowd takes part in no redirects: that would be errors of its own.
	for name, value := range map[string]string{"disk-reserve": clusterSettings["disk-reserve"], "auto-split": "false", "leader-balance": "false", "balance": "false"} {
		if _, err := operator.SetSetting(ctx, name, value); err != nil {
			return nil, fmt.Errorf("setting %s: %w", name, err)
		}
	}
	w := &crowd{nodes: map[uint64][]*lane{}, seed: maphash.MakeSeed(), value: bytes.Repeat([]byte("x"), valueBytes)}
	defer w.close()
	if err := w.join(ctx, c, operator); err != nil {
		return nil, err
	}
	watching, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.watch(watching, operator)
	}()
	f, err := overload.Run(ctx, overload.Config{Do: w.do, Measure: h.length / 3, Storm: h.length * 2 / 3, Say: say})
	stop()
	<-done
	if errors.Is(err, overload.ErrTooSlow) {
		text, _ := json.Marshal(f)
		say("%s", text)
	}
	return f, err
}

// evenLeaders waits until every node leads as many shards as any other: the storm is to be one for all of them.
func evenLeaders(ctx context.Context, operator *client.Client, nodes int) error {
	ctx, cancel := context.WithTimeout(ctx, evenMax)
	defer cancel()
	for {
		resp, err := operator.Shards(ctx)
		if err == nil {
			leads := map[uint64]int{}
			for _, s := range resp.GetShards() {
				leads[s.GetDescriptor_().GetLeader()]++
			}
			counts := slices.Sorted(maps.Values(leads))
			if leads[0] == 0 && len(counts) == nodes && counts[0] == counts[nodes-1] {
				return nil
			}
		}
		if wait.For(ctx, routesEvery) != nil {
			return errors.Join(errors.New("the leaderships do not even out"), err)
		}
	}
}

// tellStorm prints the figures and writes summary.json.
func (h *harness) tellStorm(f *overload.Figures, reasons []string, peaks map[string]int64) error {
	verdict := "VALID"
	if len(reasons) > 0 {
		verdict = "NOT VALID"
	}
	fmt.Printf("%s: overload of %d nodes, each with --memory %s and at most %d MiB\n", verdict, h.nodes, overloadMemory, overloadCap>>20)
	fmt.Printf("  capacity %.0f a second; in the storm %.0f offered, %.0f done, %.0f refused; %.0f after it\n", f.Capacity, f.Offered, f.Done, f.Refused, f.After)
	fmt.Printf("  accepted: p50 %v, p99 %v, longest %v; refused: p50 %v, p99 %v, %d without a hint; %d ended otherwise, %d were not begun\n",
		f.AcceptedP50, f.AcceptedP99, f.AcceptedMax, f.RefusedP50, f.RefusedP99, f.Hintless, f.Other, f.Unbegun)
	for _, name := range sortedKeys(peaks) {
		fmt.Printf("  %s had %d MiB at most\n", name, peaks[name]>>20)
	}
	for _, reason := range reasons {
		fmt.Printf("  - %s\n", reason)
	}
	text, err := json.MarshalIndent(map[string]any{"valid": len(reasons) == 0, "reasons": reasons, "figures": f, "peak_memory_bytes": peaks, "nodes": h.nodes}, "", "  ")
	if err != nil {
		return err
	}
	return write(filepath.Join(h.out, "summary.json"), func(file *bufio.Writer) error {
		_, err := file.Write(append(text, '\n'))
		return err
	})
}
