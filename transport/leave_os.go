//go:build !kvdtest

package transport

import kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"

// leave is how a test build (tag kvdtest) loses, delays and repeats messages.
func (*peer) leave(messages []*kvdv1.RaftMessage) []*kvdv1.RaftMessage { return messages }
