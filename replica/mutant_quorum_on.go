//go:build mutant_answer_before_quorum

package replica

import "github.com/kvdstore/kvd/kv"

// mutantAnswerBeforeQuorum breaks the acknowledgement on purpose: a write is answered when the leader has it.
const mutantAnswerBeforeQuorum = true

// answerEarly guesses what puts will give, where nothing else is under way that could change it.
func (r *Replica) answerEarly(p *proposed, payload []byte) {
	b, err := r.codec.DecodeBatch(payload)
	if err != nil || len(r.proposals) > 1 {
		return
	}
	for _, c := range b.Commands {
		if kv.Op(c.GetOp()) != kv.OpPut || c.GetCondition() != nil {
			return
		}
	}
	revision := r.machine.(interface{ Revision() kv.Revision }).Revision()
	for i, w := range p.waiters {
		at := revision + kv.Revision(i+1)
		r.answers = append(r.answers, Answer{Waiter: w, Result: kv.Result{Status: kv.Done, Revision: at}})
		p.waiters[i] = nil
	}
}
