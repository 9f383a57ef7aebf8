package storage

// An ingest replaces a shard's data by what a snapshot brought. Nothing of it is visible before its Commit, and all of
// it after: data, the index of its expiries, and the shard's state are one step, and durable. What was committed to the
// store before is made durable first (D1). A crash before leaves tables that the next open removes.
//
// The meta group holds no user keys, though its descriptor spans the whole key space: its ingest replaces its state
// alone. Were it taken by its span, it would replace the data of every shard on the node.

import (
	"bytes"

	"github.com/kvdstore/kvd/kv"
)

// checkIngestSpan refuses a shard's empty span: nothing could be put in, and nothing would be replaced.
func checkIngestSpan(shard kv.ShardID, span kv.Span) error {
	if shard != kv.MetaShard && span.Empty() {
		return &kv.InvalidError{Field: "span", Bound: "not empty, is " + span.String()}
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
