// Package load makes the requests of a benchmark and paces them.
//
// A Workload says which operations on which keys, and makes a Generator for each caller. Run has callers work through
// theirs: in a closed loop each sends its next request when the last has ended; in an open loop requests have moments at
// which they are due, whatever became of earlier ones, and a latency counts from there (no coordinated omission).
//
// The YCSB workloads are those of Cooper et al., "Benchmarking cloud serving systems with YCSB", SoCC 2010, with the
// constants of its program.
package load
