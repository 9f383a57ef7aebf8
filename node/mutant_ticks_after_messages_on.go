//go:build mutant_ticks_after_messages

package node

// mutantTicksAfterMessages breaks T1 on purpose: ticks that were missed are stepped, after the messages.
const mutantTicksAfterMessages = true
