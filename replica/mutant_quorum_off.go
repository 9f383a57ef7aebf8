//go:build !mutant_answer_before_quorum

package replica

// mutantAnswerBeforeQuorum breaks the acknowledgement on purpose, under the build tag mutant_answer_before_quorum: a
// write is answered when the leader has it, before a majority does.
const mutantAnswerBeforeQuorum = false

func (*Replica) answerEarly(*proposed, []byte) {}
