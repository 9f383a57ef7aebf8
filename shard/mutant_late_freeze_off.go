//go:build !mutant_late_freeze

package shard

const mutantLateFreeze = false
