// Package check judges histories of operations: what clients of a cluster asked, when, and what they were told.
// The simulator, the tests with real processes and `kvcli verify` record histories and hand them to the checkers:
//
//	                    +-- Linearizable    is there one order of each key's operations that explains all answers?
//	clients -> History -+-- Revisions       do revisions rise with real time? (a sort: fast, and always worth running)
//	                    +-- NoLostWrites    does what is left at the end hold every acknowledged write?
//
// Each returns violations, none if all is well. A checker is exact where it can be, and lenient where it cannot: it
// never accuses a correct history.
//
// All checkers take every key to be absent at the beginning, and to have been changed by nothing but the history:
// no expiry, no other client.
package check
