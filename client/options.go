package client

import (
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// WriteOption changes a write.
type WriteOption func(*write)

type write struct {
	ttl       time.Duration
	expireAt  time.Time
	condition *kvdv1.Condition
}

// TTL makes a key go away after a time, counted from the moment of the write.
func TTL(d time.Duration) WriteOption { return func(w *write) { w.ttl = d } }

// ExpireAt makes a key go away at a moment. A Delete takes neither a TTL nor this.
func ExpireAt(t time.Time) WriteOption { return func(w *write) { w.expireAt = t } }

// IfAbsent writes only if the key is not there.
func IfAbsent() WriteOption {
	return func(w *write) { w.condition = &kvdv1.Condition{Kind: &kvdv1.Condition_Absent{Absent: true}} }
}

// IfRevision writes only if the key is there at exactly this revision.
func IfRevision(r kv.Revision) WriteOption {
	return func(w *write) { w.condition = &kvdv1.Condition{Kind: &kvdv1.Condition_Revision{Revision: uint64(r)}} }
}

func options(list []WriteOption) *write {
	w := &write{}
	for _, o := range list {
		o(w)
	}
	return w
}

// ttlMillis rounds away from zero: a write that asks for a time to live has one.
func (w *write) ttlMillis() int64 {
	ms := w.ttl.Milliseconds()
	if w.ttl > 0 && ms == 0 {
		ms = 1
	}
	return ms
}

func (w *write) expireAtMillis() int64 {
	if w.expireAt.IsZero() {
		return 0
	}
	return w.expireAt.UnixMilli()
}

// ReadOption changes a read.
type ReadOption func(*kvdv1.Level)

// Eventual reads what any replica holds, at once. Without it a read is linearizable.
func Eventual() ReadOption { return Level(kv.Eventual) }

// Level chooses the consistency of a read. Levels that the cluster has not built are refused with kv.ErrUnsupported.
func Level(level kv.Level) ReadOption {
	return func(l *kvdv1.Level) { *l = kvdv1.Level(level) }
}

func level(list []ReadOption) kvdv1.Level {
	l := kvdv1.Level_LINEARIZABLE
	for _, o := range list {
		o(&l)
	}
	return l
}

// placeOf is the node that a read needs.
func placeOf(l kvdv1.Level) place {
	if l == kvdv1.Level_EVENTUAL {
		return atReplica
	}
	return atLeader
}
