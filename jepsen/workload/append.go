package workload

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/kv"
)

const (
	// groupsInUse are groups of keys that lie beside one another, so in one shard unless a split goes through the middle.
	// Each is put aside after groupUsesMax operations.
	groupsInUse  = 12
	groupUsesMax = 150
	// listsOfGroup are the lists of a group, stepsMax the most steps of a transaction.
	listsOfGroup = 5
	stepsMax     = 4
)

// errConditions: a transaction's comparisons did not hold, so nothing was done.
var errConditions = errors.New("the comparisons did not hold")

// lists are appended to and read by transactions. kvd has no append: a transaction reads the lists and writes them, longer,
// if they have not changed since.
type lists struct {
	run    *Run
	groups *pool
	next   atomic.Int64 // The last element.
}

func newAppend(r *Run) driver {
	return &lists{run: r, groups: newPool(r.Prefix, groupsInUse, groupUsesMax)}
}

func (d *lists) setup(context.Context) error { return nil }

// member is a key of a group.
func member(group string, i int) string { return group + "/" + strconv.Itoa(i) }

func (d *lists) step(ctx context.Context, t *thread) {
	group, _ := d.groups.pick(t.rng)
	var ops []check.ListOp
	var written []string
	for range 1 + t.rng.IntN(stepsMax) {
		o := check.ListOp{Key: member(group, t.rng.IntN(listsOfGroup))}
		if t.rng.IntN(2) == 0 {
			o.Append, o.Element = true, d.next.Add(1)
			written = append(written, o.Key)
		}
		ops = append(ops, o)
	}
	if len(written) == 0 {
		d.groups.judge(group, t.readLists(ctx, ops, nil))
		return
	}
	base := map[string]listState{}
	var reads []check.ListOp
	for _, key := range written {
		reads = append(reads, check.ListOp{Key: key})
	}
	err := t.readLists(ctx, reads, base)
	if err == nil {
		err = t.appendLists(ctx, ops, base)
	}
	d.groups.judge(group, err)
}

// readBack reads each list by itself: a group may lie in two shards.
func (d *lists) readBack(ctx context.Context) error {
	groups := d.groups.all()
	return d.run.each(ctx, len(groups)*listsOfGroup, func(ctx context.Context, t *thread, i int) error {
		return t.readLists(ctx, []check.ListOp{{Key: member(groups[i/listsOfGroup], i%listsOfGroup)}}, nil)
	})
}

// listState is a list as it is stored, and its revision, 0 if it is absent.
type listState struct {
	text     string
	revision kv.Revision
}

// readLists reads lists in one transaction, and notes in states how they are stored, unless that is nil.
func (t *thread) readLists(ctx context.Context, ops []check.ListOp, states map[string]listState) error {
	r := &kvdv1.TxnRequest{}
	for _, o := range ops {
		r.Then = append(r.Then, getOf(o.Key))
	}
	return t.read(ctx, check.TxnName, &check.ListTxnAsked{Ops: ops}, func(ctx context.Context) (any, error) {
		resp, err := t.client.Txn(ctx, r)
		if err != nil {
			return nil, err
		}
		steps, err := told(ops, resp)
		for i := 0; i < len(steps) && states != nil; i++ {
			x := resp.GetResults()[i]
			states[steps[i].Key] = listState{string(x.GetValue()), kv.Revision(x.GetRevision())}
		}
		return steps, err
	})
}

// appendLists does a transaction on the condition that the lists that it appends to are as states says.
func (t *thread) appendLists(ctx context.Context, ops []check.ListOp, states map[string]listState) error {
	r := &kvdv1.TxnRequest{}
	now := map[string]string{}
	for _, o := range ops {
		if !o.Append {
			r.Then = append(r.Then, getOf(o.Key))
			continue
		}
		text, again := now[o.Key]
		if !again {
			text = states[o.Key].text
			r.Compare = append(r.Compare, unchanged(o.Key, states[o.Key].revision))
		}
		now[o.Key] = appended(text, o.Element)
		r.Then = append(r.Then, putOf(o.Key, now[o.Key]))
	}
	return t.write(ctx, check.TxnName, &check.ListTxnAsked{Ops: ops}, func(ctx context.Context) (any, error) {
		resp, err := t.client.Txn(ctx, r)
		switch {
		case err != nil:
			return nil, err
		case !resp.GetSucceeded():
			return nil, errConditions
		}
		return told(ops, resp)
	})
}

// told are the steps with what they read.
func told(ops []check.ListOp, resp *kvdv1.TxnResponse) ([]check.ListOp, error) {
	if len(resp.GetResults()) != len(ops) {
		return nil, fmt.Errorf("a transaction of %d steps has %d results", len(ops), len(resp.GetResults()))
	}
	out := make([]check.ListOp, len(ops))
	for i, o := range ops {
		if !o.Append {
			o.List = parseList(string(resp.GetResults()[i].GetValue()))
		}
		out[i] = o
	}
	return out, nil
}

// A list is stored as numbers with commas between.

func appended(text string, element int64) string {
	if text != "" {
		text += ","
	}
	return text + strconv.FormatInt(element, 10)
}

// notAnElement is what no list has: it stands for what is no number.
const notAnElement = -1

func parseList(text string) []int64 {
	list := []int64{}
	if text == "" {
		return list
	}
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.ParseInt(part, 10, 64)
		if err != nil {
			n = notAnElement
		}
		list = append(list, n)
	}
	return list
}

// Parts of transactions.

func getOf(key string) *kvdv1.TxnOp {
	return &kvdv1.TxnOp{Op: &kvdv1.TxnOp_Get{Get: &kvdv1.TxnGet{Key: []byte(key)}}}
}

func putOf(key, value string) *kvdv1.TxnOp {
	return &kvdv1.TxnOp{Op: &kvdv1.TxnOp_Put{Put: &kvdv1.TxnPut{Key: []byte(key), Value: []byte(value)}}}
}

// unchanged compares a key's revision; with 0 it must be absent.
func unchanged(key string, revision kv.Revision) *kvdv1.Compare {
	if revision == 0 {
		return &kvdv1.Compare{Key: []byte(key), Kind: &kvdv1.Compare_Absent{Absent: true}}
	}
	return &kvdv1.Compare{Key: []byte(key), Kind: &kvdv1.Compare_Revision{Revision: uint64(revision)}}
}

func judgeAppend(j *judging) {
	txns, err := check.ListTxnsOf(j.calls)
	j.failed(err)
	j.found(check.Appends(txns)...)
}
