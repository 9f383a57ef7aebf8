//go:build mutant_waking_campaigns

package node

// mutantWakingCampaigns breaks M6 on purpose: a replica that wakes stands for election at once.
const mutantWakingCampaigns = true
