// Package check judges histories of operations: what clients of a cluster asked, when, and what they were told.
// The simulator, the tests with real processes and `kvcli verify` record histories and hand them to the checkers:
//
//	                    +-- Linearizable    is there one order of each key's operations that explains all answers?
//	clients -> History -+-- Expiry          the same where keys expire: not gone too early, seen too late, or back again
//	                    +-- Revisions       do revisions rise with real time? (a sort: fast, and always worth running)
//	                    +-- NoLostWrites    does what is left at the end hold every acknowledged write?
//	                    +-- Counts          do counters show what was added to them, once?
//	                    +-- Scans           do ordered reads give all that is there, once, in order?
//	                    +-- Appends         have transactions that append to lists an order?
//	                    +-- Sums            does the money in a bank stay the same?
//	                    +-- Eventual        do reads of any replica show what was written? how old are they?
//	                    +-- Cuts            do reads of several keys of a shard show one moment each?
//
// Two more look at what nodes record of themselves:
//
//	nodes -> []Lease -> Leases              never two leases over a key at one moment
//	      -> []Replica -> Replicas, Level   equal states at equal indexes; all at one index once all has healed
//
// Each returns violations, none if all is well. A checker is exact where it can be, and lenient where it cannot: it
// never accuses a correct history.
//
// All checkers of histories take every key to be absent at the beginning, and to have been changed by nothing but the
// history: no other client, and no expiry but those that its operations name.
package check
