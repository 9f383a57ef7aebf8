//go:build mutant_due_believed

package shard

// mutantDueBelieved breaks R4: a purge believes the index of expiries, and takes what was written anew.
const mutantDueBelieved = true
