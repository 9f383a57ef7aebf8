//go:build mutant_ingest_overtakes

package storage

// mutantIngestOvertakes breaks D1 on purpose: an ingest is durable before the effects of earlier steps.
const mutantIngestOvertakes = true
