package shard

import (
	"fmt"

	"github.com/kvdstore/kvd/kv"
)

// CheckCommand refuses, with a *kv.InvalidError that names the field and the bound, what apply would refuse. Who
// proposes calls it to answer quickly; apply calls it again, so that a crafted entry can do nothing.
func CheckCommand(c *kv.Command) error {
	switch c.Op {
	case kv.OpPut:
		return checkPut(c)
	case kv.OpDelete:
		if err := kv.CheckKey("key", c.Key); err != nil {
			return err
		}
		return checkCondition("condition", c.Cond, kv.IfRevision)
	case kv.OpDeleteRange:
		return checkDeleteRange(c)
	case kv.OpIncrement:
		return kv.CheckKey("key", c.Key)
	case kv.OpTxn:
		return checkTxn(c.Txn)
	case kv.OpExpire:
		return checkDue(c.Due)
	case kv.OpMeta:
		return kv.CheckValue("value", c.Value)
	case kv.OpChecksum:
		return nil
	}
	return &kv.InvalidError{Field: "op", Bound: fmt.Sprintf("%d to %d, is %d", kv.OpPut, kv.OpMeta, c.Op)}
}

func checkPut(c *kv.Command) error {
	if err := kv.CheckKey("key", c.Key); err != nil {
		return err
	}
	if err := kv.CheckValue("value", c.Value); err != nil {
		return err
	}
	if err := checkExpiry("", c.TTL, c.ExpireAt); err != nil {
		return err
	}
	return checkCondition("condition", c.Cond, kv.IfRevision)
}

// checkDeleteRange lets the start be empty: that is the first key there can be.
func checkDeleteRange(c *kv.Command) error {
	switch {
	case len(c.Key) > kv.KeyBytesMax:
		return &kv.InvalidError{Field: "start", Bound: fmt.Sprintf("at most %d bytes, has %d", kv.KeyBytesMax, len(c.Key))}
	case len(c.End) > kv.KeyBytesMax:
		return &kv.InvalidError{Field: "end", Bound: fmt.Sprintf("at most %d bytes, has %d", kv.KeyBytesMax, len(c.End))}
	case c.Limit < 0:
		return &kv.InvalidError{Field: "limit", Bound: fmt.Sprintf("0 or more, is %d", c.Limit)}
	}
	return nil
}

func checkTxn(t *kv.Txn) error {
	if t == nil {
		return &kv.InvalidError{Field: "txn", Bound: "must be set"}
	}
	if n := len(t.Compare) + len(t.Then) + len(t.Else); n > kv.TxnOpsMax {
		return &kv.InvalidError{Field: "txn", Bound: fmt.Sprintf("at most %d comparisons and operations, has %d", kv.TxnOpsMax, n)}
	}
	bytes := 0
	for i := range t.Compare {
		x := &t.Compare[i]
		if err := kv.CheckKey("compare.key", x.Key); err != nil {
			return err
		}
		if err := kv.CheckValue("compare.value", x.Cond.Value); err != nil {
			return err
		}
		if err := checkCondition("compare", x.Cond, kv.IfValue); err != nil {
			return err
		}
		bytes += len(x.Key) + len(x.Cond.Value)
	}
	for i, ops := range [2][]kv.TxnOp{t.Then, t.Else} {
		n, err := checkOps([2]string{"then.", "else."}[i], ops)
		if err != nil {
			return err
		}
		bytes += n
	}
	if bytes > kv.TxnBytesMax {
		return &kv.InvalidError{Field: "txn", Bound: fmt.Sprintf("at most %d bytes of keys and values, has %d", kv.TxnBytesMax, bytes)}
	}
	return nil
}

// checkOps gives the bytes of the keys and values.
func checkOps(list string, ops []kv.TxnOp) (int, error) {
	bytes := 0
	for i := range ops {
		o := &ops[i]
		if o.Kind < kv.TxnGet || o.Kind > kv.TxnDelete {
			return 0, &kv.InvalidError{Field: list + "op", Bound: "get, put or delete"}
		}
		if err := kv.CheckKey(list+"key", o.Key); err != nil {
			return 0, err
		}
		if err := kv.CheckValue(list+"value", o.Value); err != nil {
			return 0, err
		}
		if err := checkExpiry(list, o.TTL, o.ExpireAt); err != nil {
			return 0, err
		}
		bytes += len(o.Key) + len(o.Value)
	}
	return bytes, nil
}

func checkDue(due []kv.Due) error {
	for i := range due {
		if err := kv.CheckKey("due.key", due[i].Key); err != nil {
			return err
		}
		if due[i].ExpireAt <= 0 {
			return &kv.InvalidError{Field: "due.expire_at_ms", Bound: fmt.Sprintf("above 0, is %d", due[i].ExpireAt)}
		}
	}
	return nil
}

func checkExpiry(list string, ttl, expireAt int64) error {
	switch ttlMax := kv.TTLMax.Milliseconds(); {
	case ttl < 0 || ttl > ttlMax:
		return &kv.InvalidError{Field: list + "ttl_ms", Bound: fmt.Sprintf("0 to %d, is %d", ttlMax, ttl)}
	case expireAt < 0:
		return &kv.InvalidError{Field: list + "expire_at_ms", Bound: fmt.Sprintf("0 or more, is %d", expireAt)}
	case ttl != 0 && expireAt != 0:
		return &kv.InvalidError{Field: list + "expire_at_ms", Bound: "at most one of ttl_ms and expire_at_ms is set"}
	}
	return nil
}

// checkCondition allows the kinds up to last: a condition of a single write may not be one of a transaction's.
func checkCondition(field string, c kv.Condition, last kv.ConditionKind) error {
	if c.Kind > last {
		return &kv.InvalidError{Field: field, Bound: "not a kind of comparison that is possible here"}
	}
	return nil
}
