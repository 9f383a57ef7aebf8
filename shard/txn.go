package shard

import (
	"fmt"

	"github.com/kvdstore/kvd/kv"
)

// A Txn compares, then does the one or the other of two lists of operations, atomically.
//
// All keys lie in the shard, else the answer is WrongShard. Comparisons see what was there before; each operation
// sees the ones before it. The list is first done aside: an answer that would outgrow the bound is refused, and then
// nothing may have been written. It is one write command if the list that was done has a put or a delete, and all
// its puts have that one revision; a list of gets counts nothing, and answers with the shard's current revision.

// opResultBytes is what one operation's result takes in an answer besides its value.
const opResultBytes = 64

// txn is a transaction in progress.
type txn struct {
	m      *Machine
	at     map[string]int // Index into writes.
	writes []txnWrite
	// revision is what its puts get.
	revision kv.Revision
}

// txnWrite is a key that the transaction has written, and what it leaves there.
type txnWrite struct {
	key []byte
	old found
	rec *kv.Record
}

func (m *Machine) txn(c *kv.Txn) (kv.Result, error) {
	t := &txn{m: m, at: map[string]int{}, revision: m.nextRevision(1)}
	result := kv.Result{Status: kv.Done, Succeeded: true, Revision: m.revision}
	for i := range c.Compare {
		f, err := m.get(c.Compare[i].Key)
		if err != nil {
			return kv.Result{}, err
		}
		result.Succeeded = result.Succeeded && holds(c.Compare[i].Cond, m.live(f))
	}
	ops := c.Else
	if result.Succeeded {
		ops = c.Then
	}
	var err error
	if result.Ops, err = t.do(ops); err != nil {
		return kv.Result{}, err
	}
	if len(result.Ops) < len(ops) {
		reason := fmt.Sprintf("txn: the answer would have more than %d bytes", kv.AnswerBytesMax)
		return kv.Result{Status: kv.Refused, Reason: reason}, nil
	}
	if writes(ops) {
		result.Revision = m.write()
	}
	for _, w := range t.writes {
		if err := m.replace(w.key, w.old, w.rec); err != nil {
			return kv.Result{}, err
		}
	}
	return result, nil
}

func writes(ops []kv.TxnOp) bool {
	for i := range ops {
		if ops[i].Kind != kv.TxnGet {
			return true
		}
	}
	return false
}

// do does the operations aside. There are fewer results than operations if the answer would outgrow its bound.
func (t *txn) do(ops []kv.TxnOp) ([]kv.TxnOpResult, error) {
	results := make([]kv.TxnOpResult, 0, len(ops))
	bytes := 0
	for i := range ops {
		r, err := t.op(&ops[i])
		if err != nil {
			return nil, err
		}
		if bytes += opResultBytes + len(r.Record.Value); bytes > kv.AnswerBytesMax {
			return results, nil
		}
		results = append(results, r)
	}
	return results, nil
}

func (t *txn) op(o *kv.TxnOp) (kv.TxnOpResult, error) {
	if o.Kind == kv.TxnPut {
		rec := &kv.Record{Value: o.Value, Revision: t.revision, ExpireAt: t.m.expireAt(o.TTL, o.ExpireAt)}
		return kv.TxnOpResult{Record: kv.Record{Revision: rec.Revision, ExpireAt: rec.ExpireAt}}, t.set(o.Key, rec)
	}
	now, err := t.get(o.Key)
	if err != nil {
		return kv.TxnOpResult{}, err
	}
	if o.Kind == kv.TxnDelete {
		return kv.TxnOpResult{Found: now.there}, t.set(o.Key, nil)
	}
	return kv.TxnOpResult{Found: now.there, Record: now.rec}, nil
}

// get reads a key as the transaction has left it.
func (t *txn) get(key []byte) (found, error) {
	if i, ok := t.at[string(key)]; ok {
		if rec := t.writes[i].rec; rec != nil {
			return t.m.live(stored(*rec)), nil
		}
		return found{}, nil
	}
	f, err := t.m.get(key)
	return t.m.live(f), err
}

func (t *txn) set(key []byte, rec *kv.Record) error {
	if i, ok := t.at[string(key)]; ok {
		t.writes[i].rec = rec
		return nil
	}
	old, err := t.m.head(key)
	if err != nil {
		return err
	}
	t.at[string(key)] = len(t.writes)
	t.writes = append(t.writes, txnWrite{key, old, rec})
	return nil
}
