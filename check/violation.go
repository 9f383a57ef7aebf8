package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/kvdstore/kvd/kv"
)

// Rule names what a history breaks.
type Rule string

const (
	// NotLinearizable: no order of the key's operations explains their answers.
	NotLinearizable Rule = "not linearizable"
	// TimedOut: the search for an order took too long, so nothing was shown. It counts as a failure.
	TimedOut Rule = "linearizability not decided in time"
	// RevisionWentBack: an operation that began after another returned saw a lower revision.
	RevisionWentBack Rule = "revision went back"
	// RevisionShared: two writes of a key have one revision.
	RevisionShared Rule = "revision shared by two writes"
	// ValueChanged: one revision of a key was seen with two values.
	ValueChanged Rule = "one revision with two values"
	// LostWrite: what is left at the end lacks an acknowledged write.
	LostWrite Rule = "acknowledged write lost"
	// PhantomWrite: what is left at the end was written by nobody.
	PhantomWrite Rule = "value that nobody wrote"
	// WrongCount: a counter is not the sum of its increments.
	WrongCount Rule = "counter differs from its increments"
	// SeenExpired: a key was seen too long after its time.
	SeenExpired Rule = "seen after its expiry"
	// GoneEarly: a key was gone before its time, and nothing else took it away.
	GoneEarly Rule = "gone before its expiry"
	// BackAgain: a key was gone, and then there at the same revision.
	BackAgain Rule = "gone, and back at its old revision"
	// ExpiryChanged: one revision was told with two expiries, or with one that nobody asked for.
	ExpiryChanged Rule = "wrong expiry"
	// TornRead: a read of several keys showed two moments.
	TornRead Rule = "read torn"
	// MissingInScan: a scan lacks a key that was there all the time.
	MissingInScan Rule = "key missing in a scan"
	// RepeatedInScan: a scan gave a key twice.
	RepeatedInScan Rule = "key repeated in a scan"
	// UnorderedScan: a scan gave a key after a greater one.
	UnorderedScan Rule = "scan out of order"
	// ScanOutside: a scan gave a key that it was not asked for, or more keys than it was.
	ScanOutside Rule = "scan beyond its bounds"
	// AppendLost: a list lacks an element that was acknowledged, or seen, before.
	AppendLost Rule = "append lost"
	// AppendDoubled: a list has an element twice.
	AppendDoubled Rule = "append doubled"
	// ListsDiverge: of two lists that were read of one key, none is a beginning of the other.
	ListsDiverge Rule = "lists diverge"
	// OwnAppendUnseen: a transaction read a list as it cannot have been inside of it.
	OwnAppendUnseen Rule = "transaction reads other than what it wrote"
	// AbortedRead: something was read of a transaction that was not done.
	AbortedRead Rule = "G1a: aborted read"
	// IntermediateRead: a list was read as a transaction had left it halfway.
	IntermediateRead Rule = "G1b: intermediate read"
	// WriteCycle, InformationCycle and AntiDependencyCycle: transactions have no order.
	WriteCycle          Rule = "G0: write cycle"
	InformationCycle    Rule = "G1c: circular information flow"
	AntiDependencyCycle Rule = "G2: anti-dependency cycle"
	// RealTimeCycle: transactions have an order, and it is not that of real time.
	RealTimeCycle Rule = "transactions out of real time"
	// WrongSum: the accounts of a bank do not hold its money.
	WrongSum Rule = "wrong sum"
	// WrongBalance: an account holds no number, or less than 0.
	WrongBalance Rule = "wrong balance"
	// FutureRead: a value was read before it was written.
	FutureRead Rule = "read from the future"
	// LeasesOverlap: two leases over a key ran at one moment.
	LeasesOverlap Rule = "two leases at one moment"
	// LeaseOutlived: a lease ran when another leadership over its keys had begun.
	LeaseOutlived Rule = "lease runs after an election"
	// TermShared: two nodes led, or had a lease, in one term.
	TermShared Rule = "two leaders in one term"
	// TermWentBack: a lease began after one of a later term.
	TermWentBack Rule = "lease of an earlier term"
	// VotedTwice: a replica voted for two candidates in one term.
	VotedTwice Rule = "two votes in one term"
	// VoteForgotten: a replica does not know its vote any more.
	VoteForgotten Rule = "vote forgotten"
	// Overtaken: an ingest outlived a crash, and a commit before it did not.
	Overtaken Rule = "commit overtaken by an ingest"
	// ReplicasDiffer: two replicas of a shard hold different states at one index.
	ReplicasDiffer Rule = "replicas differ"
	// TimeWentBack: a shard's time was lower at a later index.
	TimeWentBack Rule = "time went back"
	// ReplicaBehind: replicas of a shard are not level when they should be.
	ReplicaBehind Rule = "replicas not level"
	// BadHistory: the history itself makes no sense.
	BadHistory Rule = "history refused"
)

// Violation is one thing that is wrong with one key, or with a shard.
type Violation struct {
	Rule Rule
	// Key is empty for what concerns a whole shard, which Text names.
	Key string
	// Text explains in a sentence.
	Text string
	// Operations are those that show it, the worst first.
	Operations []Operation
}

// Error describes the violation in a line, and each operation in one more.
func (v Violation) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ", v.Rule)
	if v.Key != "" {
		fmt.Fprintf(&b, "key %s: ", kv.FormatKey([]byte(v.Key)))
	}
	b.WriteString(v.Text)
	for i := range v.Operations {
		b.WriteString("\n  ")
		b.WriteString(v.Operations[i].String())
	}
	return b.String()
}

func violation(rule Rule, key, text string, ops ...*Operation) Violation {
	v := Violation{Rule: rule, Key: key, Text: text}
	for _, o := range ops {
		v.Operations = append(v.Operations, *o)
	}
	return v
}

func sortByKey(keys []keyHistory) {
	slices.SortFunc(keys, func(a, b keyHistory) int { return cmp.Compare(a.key, b.key) })
}

// refuse gives the violations of a history that makes no sense.
func refuse(h History) []Violation {
	if err := h.Validate(); err != nil {
		return []Violation{{Rule: BadHistory, Text: err.Error()}}
	}
	return nil
}
