//go:build kvdtest

package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// The network may lose, delay and repeat what nodes say to each other; links do so with all that goes over them. Rules do it with
// messages of some kinds alone, as it comes about where there are many, and the one that counts has bad luck.

const (
	// heldMax bounds the messages that are held back, and the copies to come. What is more is lost.
	heldMax = 10_000
	// copiesMax bounds the copies of a message.
	copiesMax = 100
)

// rule is what becomes of the messages that it fits: of a list the first that fits decides.
type rule struct {
	// Of are their kinds, as kindOf has them; To the nodes that they go to; Shards those that they are of. Empty is all.
	Of     []string     `json:"of"`
	To     []kv.NodeID  `json:"to"`
	Shards []kv.ShardID `json:"shards"`
	// Lose: they do not leave.
	Lose bool `json:"lose"`
	// Late is by how much later they leave.
	Late string `json:"late"`
	// Copies leave too, one after the other, the last so much later as Over says.
	Copies int    `json:"copies"`
	Over   string `json:"over"`

	late, over time.Duration
}

func parseMessages(b []byte) (list []rule, err error) {
	from := json.NewDecoder(bytes.NewReader(b))
	from.DisallowUnknownFields()
	if err := from.Decode(&list); err != nil {
		return nil, err
	}
	for i := range list {
		r := &list[i]
		for _, d := range []struct {
			text string
			to   *time.Duration
		}{{r.Late, &r.late}, {r.Over, &r.over}} {
			if d.text == "" {
				continue
			}
			if *d.to, err = time.ParseDuration(d.text); err != nil {
				return nil, err
			}
		}
		if r.late < 0 || r.over < 0 || r.Copies < 0 || r.Copies > copiesMax {
			return nil, fmt.Errorf("late and over: not negative; copies: from 0 to %d", copiesMax)
		}
		if i := slices.IndexFunc(r.Of, func(k string) bool { return !slices.Contains(Kinds, k) }); i >= 0 {
			return nil, fmt.Errorf("of: %q is none of %q", r.Of[i], Kinds)
		}
	}
	return list, nil
}

func (r *rule) fits(kind string, shard kv.ShardID, to kv.NodeID) bool {
	return (len(r.Of) == 0 || slices.Contains(r.Of, kind)) && (len(r.To) == 0 || slices.Contains(r.To, to)) &&
		(len(r.Shards) == 0 || slices.Contains(r.Shards, shard))
}

// Kinds are all that kindOf gives.
var Kinds = append(raftKinds(), "presides", "report", "question", "word", "checksum", "absent", "sleep",
	"order", "order of conf", "order of split", "order of transfer", "order of merge", "order of freeze", "order of unfreeze")

func raftKinds() (list []string) {
	for _, name := range raftpb.MessageType_name {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// kindOf gives the kind of a message: raft's by raft's name, the others by that of what they carry. What is of no shard has shard
// 0, which is the meta group's too.
func kindOf(m *kvdv1.RaftMessage) (kind string, shard kv.ShardID) {
	switch {
	case m.GetPresides() != 0:
		return "presides", 0
	case m.GetReport() != nil:
		return "report", 0
	case m.GetOrder() != nil:
		return kindOfOrder(m.GetOrder()), kv.ShardID(m.GetOrder().GetShard())
	case m.GetQuestion() != nil:
		return "question", kv.ShardID(m.GetQuestion().GetShard())
	case m.GetWord() != nil:
		return "word", kv.ShardID(m.GetWord().GetShard())
	case m.GetChecksum() != nil:
		kind = "checksum"
	case m.GetAbsent():
		kind = "absent"
	case m.GetSleep():
		kind = "sleep"
	default:
		kind = raftpb.MessageType(int32(m.GetType())).String()
	}
	return kind, kv.ShardID(m.GetShard())
}

func kindOfOrder(o *kvdv1.Order) string {
	switch o.GetStep().(type) {
	case *kvdv1.Order_Conf:
		return "order of conf"
	case *kvdv1.Order_Split:
		return "order of split"
	case *kvdv1.Order_Transfer:
		return "order of transfer"
	case *kvdv1.Order_Merge:
		return "order of merge"
	case *kvdv1.Order_Freeze:
		return "order of freeze"
	case *kvdv1.Order_Unfreeze:
		return "order of unfreeze"
	}
	return "order"
}

// messages are the rules for what a process says.
type messages struct {
	rules *told[[]rule]
	held  atomic.Int64
}

// Pass gives those of some messages to a node that leave now. The others, and copies, are given to later when their time has
// come, in a goroutine of its own.
func Pass(to kv.NodeID, list []*kvdv1.RaftMessage, later func(*kvdv1.RaftMessage)) []*kvdv1.RaftMessage {
	return process().messages.pass(to, list, later)
}

func (f *messages) pass(to kv.NodeID, list []*kvdv1.RaftMessage, later func(*kvdv1.RaftMessage)) []*kvdv1.RaftMessage {
	rules := *f.rules.now()
	if len(rules) == 0 {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), func(m *kvdv1.RaftMessage) bool {
		kind, shard := kindOf(m)
		i := slices.IndexFunc(rules, func(r rule) bool { return r.fits(kind, shard, to) })
		return i >= 0 && f.hold(&rules[i], m, later)
	})
}

// hold does what a rule says to a message, and reports that it does not leave now.
func (f *messages) hold(r *rule, m *kvdv1.RaftMessage, later func(*kvdv1.RaftMessage)) bool {
	for i := range r.Copies {
		f.after(r.late+r.over*time.Duration(i+1)/time.Duration(r.Copies), proto.Clone(m).(*kvdv1.RaftMessage), later)
	}
	if r.late > 0 && !r.Lose {
		f.after(r.late, m, later)
	}
	return r.Lose || r.late > 0
}

func (f *messages) after(d time.Duration, m *kvdv1.RaftMessage, later func(*kvdv1.RaftMessage)) {
	if f.held.Add(1) > heldMax {
		f.held.Add(-1)
		return
	}
	time.AfterFunc(d, func() {
		f.held.Add(-1)
		later(m)
	})
}
