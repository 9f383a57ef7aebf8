package check

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/kvdstore/kvd/kv"
)

// Bond is a line of what a node records of what it has said or built upon, which no crash may take back, and of what it goes on from
// after one. One of the fields after Node is set, with Group where it is a replica's.
type Bond struct {
	Node  kv.NodeID `json:"node"`
	Group kv.Group  `json:"group"`
	// Gave: the replica told this vote, to the candidate or as one.
	Gave *Vote `json:"gave,omitempty"`
	// Opened: the replica goes on with this term and vote.
	Opened *Vote `json:"opened,omitempty"`
	// Installs: the data of a snapshot is about to be made durable, up to this index; Before is what all replicas here had applied.
	Installs kv.Index  `json:"installs,omitempty"`
	Before   []Applied `json:"before,omitempty"`
	// Starts: a process begins; Found is what all replicas here have applied.
	Starts bool      `json:"starts,omitempty"`
	Found  []Applied `json:"found,omitempty"`
}

// Vote is a replica's in a term; 0 if it has none.
type Vote struct {
	Term      kv.Term
	Candidate kv.ReplicaID
}

// Applied is how far a replica has applied its log.
type Applied struct {
	Group kv.Group
	Index kv.Index
}

// ReadBonds reads what one node has recorded. The last line may be cut: the process was killed.
func ReadBonds(r io.Reader) (list []Bond, err error) {
	err = eachNote(r, func(b Bond) { list = append(list, b) })
	if err != nil {
		return nil, fmt.Errorf("read bonds: %w", err)
	}
	return list, nil
}

// eachNote calls f with what lines hold. The last may be cut.
func eachNote[T any](r io.Reader, f func(T)) error {
	var cut error
	count := 0
	return eachLine(r, func(text []byte) error {
		if cut != nil {
			return fmt.Errorf("after line %d, which is cut: %w", count, cut)
		}
		count++
		var note T
		if cut = json.Unmarshal(text, &note); cut == nil {
			f(note)
		}
		return nil
	})
}

// Bonds looks at what one node has recorded, in that order, for what a crash took back: a vote (T3, T9), and a commit of the
// state store before an ingest that is there (D1). A replica that gives two votes in a term has forgotten the first.
func Bonds(list []Bond) (found []Violation) {
	votes := map[kv.Group]Vote{}
	var ingests []Bond
	for _, b := range list {
		last := votes[b.Group]
		switch {
		case b.Gave != nil:
			if b.Gave.Term == last.Term && b.Gave.Candidate != last.Candidate {
				found = append(found, bond(VotedTwice, b, "replica %d after replica %d in term %d", b.Gave.Candidate, last.Candidate, last.Term))
			}
			if b.Gave.Term > last.Term {
				votes[b.Group] = *b.Gave
			}
		case b.Opened != nil:
			if b.Opened.Term < last.Term || b.Opened.Term == last.Term && b.Opened.Candidate != last.Candidate {
				found = append(found, bond(VoteForgotten, b, "it told a vote for replica %d in term %d, and goes on from term %d with a vote for replica %d",
					last.Candidate, last.Term, b.Opened.Term, b.Opened.Candidate))
			}
		case b.Installs != 0:
			ingests = append(ingests, b)
		case b.Starts:
			for _, i := range ingests {
				found = append(found, overtaken(i, b)...)
			}
			ingests = nil
		}
	}
	return found
}

// overtaken compares what was applied before an ingest with what a start has found, if the ingest is there.
func overtaken(ingest, start Bond) (found []Violation) {
	now := map[kv.Group]kv.Index{}
	for _, a := range start.Found {
		now[a.Group] = a.Index
	}
	if now[ingest.Group] < ingest.Installs {
		return nil
	}
	for _, a := range ingest.Before {
		if index, ok := now[a.Group]; ok && index < a.Index {
			found = append(found, bond(Overtaken, ingest, "its snapshot of index %d is there, and of %v, which had applied %d before, only %d", ingest.Installs, a.Group, a.Index, index))
		}
	}
	return found
}

func bond(rule Rule, of Bond, text string, args ...any) Violation {
	return Violation{Rule: rule, Text: fmt.Sprintf("node %d, %v: ", of.Node, of.Group) + fmt.Sprintf(text, args...)}
}
