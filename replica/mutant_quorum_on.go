//go:build mutant_answer_before_quorum

package replica

import "github.com/kvdstore/kvd/kv"

// mutantAnswerBeforeQuorum breaks the acknowledgement on purpose: a write is answered when the leader has it.
const mutantAnswerBeforeQuorum = true

// answerEarly guesses what the commands will give, as if everything before them were applied.
func (r *Replica) answerEarly(p *proposed) {
	type counted interface{ Revision() kv.Revision }
	revision := r.machine.(counted).Revision()
	for _, before := range r.proposals {
		for range before.waiters {
			if before.seq <= p.seq {
				revision++
			}
		}
	}
	for i, w := range p.waiters {
		at := revision - kv.Revision(len(p.waiters)-1-i)
		r.answers = append(r.answers, Answer{Waiter: w, Result: kv.Result{Status: kv.Done, Revision: at}})
		p.waiters[i] = nil
	}
}
