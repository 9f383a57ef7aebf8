package storage

// An ingest replaces a shard's data by what a snapshot brought. Nothing of it is visible before its Commit, and all of
// it after: data, the index of its expiries, and the shard's state are one step, and durable. What was committed to the
// store before is made durable first (D1). A crash before leaves tables that the next open removes.
//
// The meta group holds no user keys, though its descriptor spans the whole key space: its ingest replaces its state
// alone. Were it taken by its span, it would replace the data of every shard on the node.
//
// A shard that has split or absorbed others since the replica here heard of it comes with another span than that replica
// holds. What is replaced is then wider than what comes, and the absorbed shards' replicas go in the same step: between
// two steps a crash would leave keys that are in no replica, or in two.

import (
	"bytes"
	"fmt"

	"github.com/kvdstore/kvd/kv"
)

// checkIngestSpan refuses a shard's empty span: nothing could be put in, and nothing would be replaced.
func checkIngestSpan(shard kv.ShardID, span kv.Span) error {
	if shard != kv.MetaShard && span.Empty() {
		return &kv.InvalidError{Field: "span", Bound: "not empty, is " + span.String()}
	}
	return nil
}

// checkReplaced refuses to replace less than before, and anything of the meta group's.
func checkReplaced(shard kv.ShardID, replaced, span kv.Span) error {
	if shard == kv.MetaShard || span.Empty() || !span.ContainsSpan(replaced) {
		return &kv.InvalidError{Field: "span", Bound: fmt.Sprintf("of user keys, with all of %v, is %v", replaced, span)}
	}
	return nil
}

// checkAbsorbed refuses a shard that cannot have been absorbed by another.
func checkAbsorbed(shard kv.ShardID, absorbed kv.Group) error {
	if absorbed.Shard == shard || absorbed.Shard == kv.MetaShard {
		return &kv.InvalidError{Field: "absorbed", Bound: fmt.Sprintf("another shard than %d and %d, is %d", shard, kv.MetaShard, absorbed.Shard)}
	}
	return nil
}

// checkIngested refuses a key outside the span, or not above the last one.
func checkIngested(span kv.Span, last, key []byte) error {
	if !span.Contains(key) || last != nil && bytes.Compare(key, last) <= 0 {
		return &kv.InvalidError{Field: "key", Bound: "in the span " + span.String() + " and above the key before it, is " + kv.FormatKey(key)}
	}
	return nil
}
