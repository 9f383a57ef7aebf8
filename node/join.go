package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

const (
	// joinMax bounds one question of a joiner: the meta group may be electing a leader.
	joinMax = 5 * time.Second
	// joinPause is between two rounds of questions.
	joinPause = 500 * time.Millisecond
)

// admission is how a store comes to belong to a cluster, or belongs to one already.
type admission interface {
	// Run gives the record of a node that takes part.
	Run(ctx context.Context) (*kvdv1.StoreRecord, error)
	// Answer answers a step of somebody's founding, before and after this node takes part.
	Answer(ctx context.Context, r *kvdv1.FoundRequest) (*kvdv1.FoundResponse, error)
	// Join answers somebody who asks to join, before this node takes part.
	Join(r *kvdv1.JoinRequest) error
	// Replace takes over a record that the node itself has made durable.
	Replace(r *kvdv1.StoreRecord)
}

// Joining runs a Joiner: it syncs its records and asks its questions.
type Joining struct {
	// Write makes a record durable.
	Write func(*kvdv1.StoreRecord) error
	// Ask sends a question to an address.
	Ask    func(ctx context.Context, address string, r *kvdv1.JoinRequest) (*kvdv1.JoinResponse, error)
	Logger *slog.Logger

	mu     sync.Mutex
	joiner *Joiner
}

// NewJoining starts with a Joiner.
func NewJoining(j *Joiner, write func(*kvdv1.StoreRecord) error, logger *slog.Logger) *Joining {
	return &Joining{joiner: j, Write: write, Logger: logger}
}

// Run asks one address after the other until one lets this node in.
func (r *Joining) Run(ctx context.Context) (*kvdv1.StoreRecord, error) {
	report := time.NewTimer(foundReportFirst)
	defer report.Stop()
	for round := 0; ; round++ {
		if done, err := r.settle(); done != nil || err != nil {
			return done, err
		}
		if round > 0 && round%len(r.joiner.Members) == 0 {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(joinPause):
			}
		}
		r.ask(ctx)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-report.C:
			r.report()
			report.Reset(foundReport)
		default:
		}
	}
}

// settle syncs what is to be synced, and tells whether that was all.
func (r *Joining) settle() (*kvdv1.StoreRecord, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if record := r.joiner.Unsynced(); record != nil {
		if err := r.Write(record); err != nil {
			return nil, err
		}
		r.joiner.Synced()
	}
	return r.joiner.Done(), r.joiner.Err()
}

func (r *Joining) ask(ctx context.Context) {
	r.mu.Lock()
	address, request := r.joiner.Ask()
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, joinMax)
	defer cancel()
	resp, err := r.Ask(ctx, address, request)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.joiner.Answer(resp, err)
}

func (r *Joining) report() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Logger.Info("this node waits for a member of the cluster to let it in", "asked", strings.Join(r.joiner.Missing(), "; "))
}

// Answer answers who thinks that this node is to found a cluster with it.
func (r *Joining) Answer(context.Context, *kvdv1.FoundRequest) (*kvdv1.FoundResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	record := r.joiner.Record()
	if record.GetStoreId() == 0 {
		return nil, errors.New("has no store yet")
	}
	resp := &kvdv1.FoundResponse{Name: r.joiner.Name, StoreId: record.StoreId, Refusal: "is about to join a cluster, and founds none"}
	if record.ClusterId != 0 {
		resp.Refusal = fmt.Sprintf("has joined cluster %v", kv.ClusterID(record.ClusterId))
	}
	return resp, nil
}

// Join answers another joiner, or this node's own question: --join may name the node itself.
func (r *Joining) Join(req *kvdv1.JoinRequest) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if req.GetStoreId() == r.joiner.Record().GetStoreId() {
		return errors.New("is this node itself")
	}
	return errors.New("waits to join itself")
}

// Replace takes over a record that the node itself has made durable.
func (r *Joining) Replace(record *kvdv1.StoreRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.joiner.record = proto.CloneOf(record)
}

// Join lets a node into the cluster (B2).
func (n *Node) Join(ctx context.Context, r *kvdv1.JoinRequest) (*kvdv1.JoinResponse, error) {
	switch {
	case n.stopping.Load():
		return nil, kv.ErrStopping
	case !n.serving.Load():
		return nil, n.admission.Join(r)
	}
	ctx, cancel := context.WithTimeout(ctx, joinMax)
	defer cancel()
	if refusal := n.copied(r); refusal != "" {
		return &kvdv1.JoinResponse{Refusal: refusal}, nil
	}
	result, err := n.writeMeta(ctx, &kvdv1.MetaCommand{Command: &kvdv1.MetaCommand_Join{Join: &kvdv1.MetaNode{
		Node: &kvdv1.Node{Name: r.GetName(), Address: r.GetAddress(), Region: r.GetRegion()}, StoreId: r.GetStoreId(),
	}}})
	if invalid, ok := errors.AsType[*kv.InvalidError](err); ok {
		return &kvdv1.JoinResponse{Refusal: invalid.Bound}, nil
	}
	if err != nil {
		return nil, err
	}
	return n.joined(ctx, kv.NodeID(result.GetCounter()), kv.StoreID(r.GetStoreId()))
}

// joined waits until this node knows the new one, as does the answer then.
func (n *Node) joined(ctx context.Context, id kv.NodeID, store kv.StoreID) (*kvdv1.JoinResponse, error) {
	for {
		p := n.meta.Load()
		if x, ok := p.shards.Node(id); ok && x.Store == store {
			return &kvdv1.JoinResponse{ClusterId: uint64(n.self.Cluster), NodeId: uint64(id), Meta: p.shards.State()}, nil
		}
		select {
		case <-p.newer:
		case <-ctx.Done():
			return nil, fmt.Errorf("has not heard of node %d yet, which the joiner is", id)
		}
	}
}

// copied refuses who has the store of a member that runs. A joiner asks again until it has its id on disk, and runs as a
// node only then: so these are two directories, one of them a copy.
func (n *Node) copied(r *kvdv1.JoinRequest) (refusal string) {
	for _, x := range n.meta.Load().shards.Nodes() {
		if x.Store != kv.StoreID(r.GetStoreId()) {
			continue
		}
		heard := time.Unix(0, n.network.LastHeard(x.ID))
		if x.ID == n.self.Node || time.Since(heard) < suspectAfter {
			return fmt.Sprintf("store: this data directory is that of node %d (%s at %s), which runs: one is a copy; start with an empty one", x.ID, x.Name, x.Address)
		}
	}
	return ""
}
