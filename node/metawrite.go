package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

// writeMeta has the meta group carry a command out. While the meta group has no leader it is tried again for a while,
// within the deadline; the error then says for whom it waits.
func (n *Node) writeMeta(ctx context.Context, m *kvdv1.MetaCommand) (*kvdv1.CommandResult, error) {
	for a := (attempts{n: n, until: patience(kv.Route{})}); ; {
		p := n.meta.Load()
		if p == nil {
			return nil, n.notServing()
		}
		d := p.shards.Meta()
		resp, err := n.metaAttempt(ctx, d, m, a.next(d))
		if err == nil {
			if resp.GetStatus() == uint32(kv.Refused) {
				return nil, &kv.InvalidError{Field: "command of the meta group", Bound: resp.GetReason()}
			}
			return resp, nil
		}
		if !a.again(ctx, err) {
			return nil, n.waiting(p.shards, err)
		}
	}
}

// metaAttempt gives a command to the node that leads the meta group, as far as it is known. To a node that is silent
// nothing is given: then the command was surely not done.
func (n *Node) metaAttempt(ctx context.Context, d *kv.Descriptor, m *kvdv1.MetaCommand, to kv.NodeID) (*kvdv1.CommandResult, error) {
	request := &kvdv1.ForwardRequest{Request: &kvdv1.ForwardRequest_Meta{Meta: m}}
	if to == n.self.Node {
		resp := n.Forward(ctx, request)
		return resp.GetWrite(), wire.ToError(wire.Write, resp.Error)
	}
	if n.silent(to) {
		n.learn(d.Shard, 0)
		return nil, &kv.NotLeaderError{Shard: d.Shard}
	}
	listening, cancel := n.whileHeard(ctx, to)
	defer cancel()
	resp, sent, err := n.network.Forward(listening, to, request)
	switch {
	case err != nil && !sent:
		n.learn(d.Shard, 0)
		return nil, &kv.NotLeaderError{Shard: d.Shard}
	case err != nil:
		n.learn(d.Shard, 0)
		return nil, errors.Join(kv.ErrUnknown, err)
	}
	return resp.GetWrite(), wire.ToError(wire.Write, resp.Error)
}

// silent reports that another node has not been heard of for longer than silentMax.
func (n *Node) silent(id kv.NodeID) bool {
	return id != n.self.Node && time.Since(n.heard(id)) > silentMax
}

// heard is when a node was last heard of; none counts as silent before this node's own start.
func (n *Node) heard(id kv.NodeID) time.Time {
	return time.Unix(0, max(n.network.LastHeard(id), n.began.UnixNano()))
}

// waitingError is an error of a command of the meta group that says for whom the command waited.
type waitingError struct {
	waits string
	err   error
}

func (e *waitingError) Error() string { return e.waits + ": " + e.err.Error() }
func (e *waitingError) Unwrap() error { return e.err }

// waiting adds to an error of the meta group, if it comes from the want of a leader, which of its voters do not answer.
func (n *Node) waiting(m *raftmeta.Map, err error) error {
	if !errors.As(err, new(*kv.NotLeaderError)) && kv.OutcomeOf(err) != kv.Unknown {
		return err
	}
	voters, silent := 0, []string(nil)
	for _, r := range m.Meta().Replicas {
		if r.Learner || r.Outgoing {
			continue
		}
		if voters++; n.silent(r.Node) {
			silent = append(silent, nodeName(m, r.Node))
		}
	}
	waits := "waits for the meta group to elect a leader"
	if 2*len(silent) >= voters && len(silent) > 0 {
		waits = fmt.Sprintf("waits for a majority of the meta group's %d voters: %s not answer", voters, listed(silent, "does", "do"))
	}
	return &waitingError{waits, err}
}

// nodeName is how people are told of a node.
func nodeName(m *raftmeta.Map, id kv.NodeID) string {
	if x, ok := m.Node(id); ok && x.Name != "" {
		return fmt.Sprintf("%s (node %d)", x.Name, id)
	}
	return fmt.Sprintf("node %d", id)
}

// listed is a list for people, with the verb that fits it.
func listed(names []string, one, many string) string {
	if n := len(names); n > 1 {
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1] + " " + many
	}
	return strings.Join(names, "") + " " + one
}
