//go:build !mutant_exemption_kept

package replica

const mutantExemptionKept = false
