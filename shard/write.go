package shard

import (
	"strconv"

	"github.com/kvdstore/kvd/kv"
)

// The writes of a single key. The leader proposes them for clients. Done gives the shard's revision after the write,
// which for a put or an increment is the key's; ConditionFailed the key's current one, 0 when it is absent. A delete
// of a key that is not there is carried out, and counts: its revision tells a reader since when the key is absent.

func (m *Machine) put(c *kv.Command) (kv.Result, error) {
	old, err := m.before(c.Key, c.Cond)
	if err != nil {
		return kv.Result{}, err
	}
	if now := m.live(old); !holds(c.Cond, now) {
		return conditionFailed(now), nil
	}
	revision := m.write()
	rec := &kv.Record{Value: c.Value, Revision: revision, ExpireAt: m.expireAt(c.TTL, c.ExpireAt)}
	return kv.Result{Status: kv.Done, Revision: revision}, m.replace(c.Key, old, rec)
}

func (m *Machine) delete(c *kv.Command) (kv.Result, error) {
	old, err := m.before(c.Key, c.Cond)
	if err != nil {
		return kv.Result{}, err
	}
	now := m.live(old)
	if !holds(c.Cond, now) {
		return conditionFailed(now), nil
	}
	return kv.Result{Status: kv.Done, Revision: m.write(), Found: now.there}, m.replace(c.Key, old, nil)
}

// counterBytesMax is the longest decimal number of 64 bits: -9223372036854775808.
const counterBytesMax = 20

// increment adds to a decimal counter and keeps its expiry. An absent key counts as 0. What is no number, and a sum
// of more than 64 bits, is refused and nothing counted.
func (m *Machine) increment(c *kv.Command) (kv.Result, error) {
	old, err := m.get(c.Key)
	if err != nil {
		return kv.Result{}, err
	}
	now := m.live(old)
	var value int64
	if now.there {
		if len(now.rec.Value) > counterBytesMax {
			return kv.Result{Status: kv.NotANumber}, nil
		}
		if value, err = strconv.ParseInt(string(now.rec.Value), 10, 64); err != nil {
			return kv.Result{Status: kv.NotANumber}, nil
		}
	}
	sum := value + c.Delta
	if (sum > value) != (c.Delta > 0) {
		return kv.Result{Status: kv.NotANumber}, nil
	}
	revision := m.write()
	rec := &kv.Record{Value: strconv.AppendInt(nil, sum, 10), Revision: revision, ExpireAt: now.rec.ExpireAt}
	return kv.Result{Status: kv.Done, Revision: revision, Counter: sum}, m.replace(c.Key, old, rec)
}
