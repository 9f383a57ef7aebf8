//go:build mutant_scan_ends_with_shard

package node

// mutantScanEndsWithShard breaks a scan on purpose: the end of a shard, wherever it has moved to since, is taken for the end of
// the scan.
const mutantScanEndsWithShard = true
