//go:build !mutant_scan_ends_with_shard

package node

const mutantScanEndsWithShard = false
