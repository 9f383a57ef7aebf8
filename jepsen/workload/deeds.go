package workload

import (
	"encoding/json"
	"slices"

	"github.com/kvdstore/kvd/check"
)

// deed is something that a workload does. A cluster that refuses every write, or finds no key, answers many operations, and never
// wrongly.
type deed struct {
	name string
	f    string
	// did tells whether an operation of that F that was done is one; nil if each is.
	did func(c *check.Call) bool
}

var (
	didPut         = deed{"put", check.Put.String(), nil}
	didPutExpiring = deed{"put with an expiry", check.Put.String(), asking(func(a check.Asked) bool { return a.TTL != 0 || a.ExpireAt != 0 })}
	didGet         = deed{"get of a key that was there", check.Get.String(), telling(func(t check.Told) bool { return t.Found })}
	didGetEventual = deed{"EVENTUAL get of a key that was there", check.EventualName, telling(func(t check.Told) bool { return t.Found })}
	didCAS         = deed{"cas whose condition held", check.CAS.String(), telling(func(t check.Told) bool { return t.Succeeded })}
	didIncrement   = deed{"increment", check.Increment.String(), nil}
	didScan        = deed{"scan of keys that were there", check.ScanName, telling(func(items []check.ScanItem) bool { return len(items) > 0 })}
	didAppend      = deed{"append", check.TxnName, telling(func(ops []check.ListOp) bool {
		return slices.ContainsFunc(ops, func(o check.ListOp) bool { return o.Append })
	})}
	didReadList = deed{"read of a list that was there", check.TxnName, telling(func(ops []check.ListOp) bool {
		return slices.ContainsFunc(ops, func(o check.ListOp) bool { return len(o.List) > 0 })
	})}
	// To open accounts is no transfer.
	didTransfer = deed{"transfer", check.BankWriteName, asking(func(a check.BankAsked) bool { return len(a.Expect) > 0 && a.Expect[0] != 0 })}
	didBalances = deed{"read of all balances", check.BankReadName, asking(func(a check.BankAsked) bool { return a.Total != 0 && !a.Final })}
)

func asking[A any](did func(A) bool) func(c *check.Call) bool {
	return func(c *check.Call) bool { return holds(c.Invoke.Value, did) }
}

func telling[T any](did func(T) bool) func(c *check.Call) bool {
	return func(c *check.Call) bool { return holds(c.Done.Value, did) }
}

func holds[V any](text json.RawMessage, did func(V) bool) bool {
	var v V
	return json.Unmarshal(text, &v) == nil && did(v)
}

// undone names the deeds of which there is none among the calls.
func undone(calls []check.Call, deeds []deed) (names []string) {
	for _, d := range deeds {
		if !slices.ContainsFunc(calls, func(c check.Call) bool {
			return c.Invoke.F == d.f && c.Type() == check.OK && (d.did == nil || d.did(&c))
		}) {
			names = append(names, d.name)
		}
	}
	return names
}
