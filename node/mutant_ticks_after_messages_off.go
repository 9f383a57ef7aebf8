//go:build !mutant_ticks_after_messages

package node

// mutantTicksAfterMessages breaks T1 on purpose, under the build tag mutant_ticks_after_messages: ticks that were missed are stepped, after the messages.
const mutantTicksAfterMessages = false
