//go:build !mutant_due_believed

package shard

const mutantDueBelieved = false
