package check

import (
	"encoding/json"
	"fmt"
	"math/big"
	"strconv"

	"github.com/kvdstore/kvd/kv"
)

// The Fs of events of a bank.
const (
	BankReadName  = "balances"
	BankWriteName = "transfer"
)

// BankAsked is the value of the event that begins a transaction on accounts, each of which is one key: a read of them, or a
// write of new balances if the revisions have not changed.
type BankAsked struct {
	Intent
	Keys []string `json:"keys"`
	// Total is what a read's balances sum to, if it is of all accounts between which money moves; 0 otherwise.
	Total int64 `json:"total,omitempty"`
	// Expect and Values are a write's, for each of Keys; a revision of 0 is absent.
	Expect []kv.Revision `json:"expect,omitempty"`
	Values []string      `json:"values,omitempty"`
	// Final is as in Asked.
	Final bool `json:"final,omitempty"`
}

// BankTold is the value of the event that ends one, if that was done: of a read the balances in the order of the keys, where
// a revision of 0 is absent; of a write the keys' new revisions.
type BankTold struct {
	Values    []string      `json:"values,omitempty"`
	Revisions []kv.Revision `json:"revisions"`
}

// BankRead is a done read of accounts at one moment.
type BankRead struct {
	Total int64
	Gets  []Operation
}

// Bank is what transactions on accounts come to.
type Bank struct {
	// Keys has each transaction as operations on one key each: gets, and conditional puts.
	*Keys
	Reads []BankRead
}

// BankOf gives the transactions on accounts among calls.
func BankOf(calls []Call) (*Bank, error) {
	b := &Bank{Keys: newKeys()}
	for i := range calls {
		c := &calls[i]
		if c.Invoke.F != BankReadName && c.Invoke.F != BankWriteName {
			continue
		}
		if err := b.take(c); err != nil {
			return nil, fmt.Errorf("event %d: %w", c.Invoke.Index, err)
		}
	}
	return b, b.History.Validate()
}

func (b *Bank) take(c *Call) error {
	var asked BankAsked
	var told BankTold
	if err := json.Unmarshal(c.Invoke.Value, &asked); err != nil {
		return err
	}
	o := Operation{Process: c.Invoke.Process, Kind: Get, Call: c.Invoke.Time, Outcome: outcomes[c.Type()]}
	if c.Done != nil {
		o.Return = c.Done.Time
	}
	n := len(asked.Keys)
	writes := c.Invoke.F == BankWriteName
	if writes && (len(asked.Expect) != n || len(asked.Values) != n) {
		return &kv.InvalidError{Field: "expect, values", Bound: "one for each key"}
	}
	if o.Outcome == Done {
		if err := json.Unmarshal(c.Done.Value, &told); err != nil {
			return err
		}
		if len(told.Revisions) != n || !writes && len(told.Values) != n {
			return &kv.InvalidError{Field: "revisions, values", Bound: "one for each key"}
		}
	}
	from := len(b.History)
	for i, key := range asked.Keys {
		o.Key = key
		if writes {
			o.Kind, o.Expect, o.Value = CAS, asked.Expect[i], asked.Values[i]
		}
		if o.Outcome == Done {
			o.Revision, o.Succeeded = told.Revisions[i], writes
			if !writes {
				o.Found, o.Observed = o.Revision != 0, told.Values[i]
			}
		}
		b.add(o, asked.Final && !writes)
	}
	if !writes && o.Outcome == Done {
		b.Reads = append(b.Reads, BankRead{asked.Total, b.History[from:len(b.History):len(b.History)]})
	}
	return nil
}

// Sums looks at reads of accounts: no balance is below 0, and those of all accounts together are the total; before they
// were opened none is there. Whether transfers are lost, or seen by half, is for NoLostWrites, Linearizable and Cuts.
func Sums(reads []BankRead) []Violation {
	var found []Violation
	for i := range reads {
		found = append(found, reads[i].judge()...)
	}
	return found
}

func (r *BankRead) judge() []Violation {
	var found []Violation
	var sum, n big.Int
	opened := 0
	ops := make([]*Operation, len(r.Gets))
	for i := range r.Gets {
		o := &r.Gets[i]
		ops[i] = o
		if !o.Found {
			continue
		}
		opened++
		balance, err := strconv.ParseInt(o.Observed, 10, 64)
		if err != nil || balance < 0 {
			found = append(found, violation(WrongBalance, o.Key, brief(o.Observed)+" is no balance", o))
		}
		sum.Add(&sum, n.SetInt64(balance))
	}
	if r.Total != 0 && opened > 0 && sum.Cmp(big.NewInt(r.Total)) != 0 {
		found = append(found, violation(WrongSum, "", fmt.Sprintf("%d of %d accounts hold %v together, not %d", opened, len(r.Gets), &sum, r.Total), ops...))
	}
	return found
}

// Cuts are the reads as Cuts takes them.
func (b *Bank) Cuts() [][]Operation {
	var cuts [][]Operation
	for _, r := range b.Reads {
		cuts = append(cuts, r.Gets)
	}
	return cuts
}
