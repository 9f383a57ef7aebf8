package shard

import "bytes"

// Separator gives the shortest prefix of right that is above left: the key at which a split parts the two (S6). It is
// nil if there is none, which is if left is not below right. Between keys that begin with a geohash it is a cell, and
// no key below it is longer than it must be. The result shares right's memory.
func Separator(left, right []byte) []byte {
	if bytes.Compare(left, right) >= 0 {
		return nil
	}
	n := 0
	for n < len(left) && left[n] == right[n] {
		n++
	}
	return right[: n+1 : n+1]
}
