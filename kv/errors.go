package kv

import (
	"errors"
	"fmt"
	"time"
)

// Outcome tells a caller what an error means for its write.
type Outcome uint8

const (
	// Unknown: the write may have been done, or may still be.
	Unknown Outcome = iota
	// NotDone: nothing was or will be written; safe to repeat.
	NotDone
)

// ErrUnknown: the write was proposed, and then a time-out or a lost leader hid how it ended.
var ErrUnknown = errors.New("the outcome of the write is unknown")

// ErrNoMap: this node does not know the shard map yet. Not done.
var ErrNoMap = errors.New("this node has no shard map yet")

// ErrStopping: the node is going down. Not done.
var ErrStopping = errors.New("the node is stopping")

// ErrNotANumber: an increment met something that is no decimal 64-bit number, or the sum overflows. Not done.
var ErrNotANumber = errors.New("the value is not a decimal number of 64 bits, or the sum overflows")

// ErrUnsupported: a consistency level or a feature that is not built yet. Not done.
var ErrUnsupported = errors.New("not supported by this version")

// InvalidError refuses an input. It names the field and the bound that was broken. Not done.
type InvalidError struct {
	Field string
	Bound string
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Bound }

// NotLeaderError: this replica does not lead the shard, or the shard has no leader now. Not done.
type NotLeaderError struct {
	Shard ShardID
	// Leader is the node that does, as far as this one knows; 0 when unknown.
	Leader NodeID
}

func (e *NotLeaderError) Error() string {
	if e.Leader == 0 {
		return fmt.Sprintf("shard %d has no leader now", e.Shard)
	}
	return fmt.Sprintf("shard %d is led by node %d", e.Shard, e.Leader)
}

// StaleEpochError: the request was routed by an old map. Not done.
type StaleEpochError struct {
	// Descriptors are the right ones, as far as this node knows.
	Descriptors []*Descriptor
}

func (e *StaleEpochError) Error() string { return "the key lies in another shard since" }

// OverloadError refuses a request before it has cost anything. Not done.
type OverloadError struct {
	// What is full.
	What string
	// RetryAfter is when to try again.
	RetryAfter time.Duration
}

func (e *OverloadError) Error() string {
	return fmt.Sprintf("%s is full, try again in %v", e.What, e.RetryAfter)
}

// DiskFullError refuses writes while a node of the shard is short of disk. Not done.
type DiskFullError struct {
	Node NodeID
	// FreeBytes are left, and NeedBytes must be; both are 0 if only the node itself knows.
	FreeBytes, NeedBytes uint64
}

func (e *DiskFullError) Error() string {
	if e.NeedBytes == 0 {
		return fmt.Sprintf("the disk of node %d is nearly full", e.Node)
	}
	return fmt.Sprintf("node %d has %d MiB of disk left, writes need %d MiB", e.Node, e.FreeBytes>>20, e.NeedBytes>>20)
}

// CrossShardError refuses a Txn whose keys lie in several shards. Not done.
type CrossShardError struct {
	Shards []ShardID
}

func (e *CrossShardError) Error() string {
	return fmt.Sprintf("the keys of a transaction must lie in one shard, these lie in %v", e.Shards)
}

// OutcomeOf tells what an error of this package means for a write. What it does not know is unknown.
func OutcomeOf(err error) Outcome {
	for _, sentinel := range []error{ErrNoMap, ErrStopping, ErrNotANumber, ErrUnsupported} {
		if errors.Is(err, sentinel) {
			return NotDone
		}
	}
	var (
		invalid    *InvalidError
		notLeader  *NotLeaderError
		stale      *StaleEpochError
		overload   *OverloadError
		diskFull   *DiskFullError
		crossShard *CrossShardError
	)
	if errors.As(err, &invalid) || errors.As(err, &notLeader) || errors.As(err, &stale) ||
		errors.As(err, &overload) || errors.As(err, &diskFull) || errors.As(err, &crossShard) {
		return NotDone
	}
	return Unknown
}

// Retryable reports whether an error is not done and worth another try: no leader, an old map, an overload.
func Retryable(err error) bool {
	var (
		notLeader *NotLeaderError
		stale     *StaleEpochError
		overload  *OverloadError
		diskFull  *DiskFullError
	)
	return errors.Is(err, ErrNoMap) || errors.Is(err, ErrStopping) || errors.As(err, &notLeader) ||
		errors.As(err, &stale) || errors.As(err, &overload) || errors.As(err, &diskFull)
}
