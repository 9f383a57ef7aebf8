//go:build !mutant_ingest_overtakes

package storage

const mutantIngestOvertakes = false
