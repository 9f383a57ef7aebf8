// Package workload drives a cluster, any cluster, as its users would, records what they were told, and judges it. The proof
// harness runs the workloads under faults, `kvcli verify` without.
//
//	New -> Setup -> Drive -> (heal) -> ReadBack -> Clean
//	                  |          |
//	                  +-- check.Recorder -- events --> Judge -> Verdict
//
// A run writes under a prefix of its own. Its operations begin at an even rate, whatever became of those before; at most
// Processes are under way at a time, and one that could not begin within its time-out is recorded as failed. Whoever
// did not hear how a write ended goes on under the number of a new process. A read that fails says nothing.
//
// Each workload comes with a judge that is lenient where it does not know, so that it never accuses a correct history: an
// operation whose end is unknown may have happened, at any time, or not.
package workload
