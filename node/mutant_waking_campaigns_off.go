//go:build !mutant_waking_campaigns

package node

const mutantWakingCampaigns = false
