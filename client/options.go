package client

import (
	"fmt"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// WriteOption changes a write.
type WriteOption func(*write)

type write struct {
	ttl       *time.Duration
	expireAt  time.Time
	condition *kvdv1.Condition
}

// TTL makes a key go away after a time above 0, counted from the moment of the write.
func TTL(d time.Duration) WriteOption { return func(w *write) { w.ttl = &d } }

// ExpireAt makes a key go away at a moment after 1970; the zero time.Time is none. A Delete takes neither a TTL nor this.
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

// check refuses what would be no expiry at all on its way: there 0 is none.
func (w *write) check() error {
	if w.ttl != nil && *w.ttl <= 0 {
		return notDone{&kv.InvalidError{Field: "ttl", Bound: fmt.Sprintf("above 0, is %v", *w.ttl)}}
	}
	if !w.expireAt.IsZero() && w.expireAt.Before(time.Unix(0, 1)) {
		return notDone{&kv.InvalidError{Field: "expire_at", Bound: fmt.Sprintf("after 1970, is %v", w.expireAt.UTC())}}
	}
	return nil
}

// ttlMillis rounds up: a key is never gone before its time.
func (w *write) ttlMillis() int64 {
	if w.ttl == nil {
		return 0
	}
	return (*w.ttl - 1).Milliseconds() + 1
}

func (w *write) expireAtMillis() int64 {
	if w.expireAt.IsZero() {
		return 0
	}
	return w.expireAt.Add(-1).UnixMilli() + 1
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
