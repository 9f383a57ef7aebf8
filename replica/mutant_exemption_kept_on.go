//go:build mutant_exemption_kept

package replica

// mutantExemptionKept breaks S5 on purpose: every later election of the heir's carries the mark of the first.
const mutantExemptionKept = true
