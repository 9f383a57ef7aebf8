package shard

import "github.com/kvdstore/kvd/kv"

// Expire purges keys that fell due (R4).
//
// The leader proposes it, with what its node's index of expiries says, when keys fell due; the batch's stamp has
// moved the shard's time, which alone is what hides the keys from readers. The index is a hint of one node, so apply
// believes only the data: a key goes if it is stored with that very expiry and the shard's time has come to it. The
// entry leaves the index in any case, on every replica, unless the key is stored with it and not due. A key outside
// the span is another shard's, which keeps its entry. It is no write command. Count says how many keys went.
func (m *Machine) expire(due []kv.Due) (kv.Result, error) {
	result := kv.Result{Status: kv.Done}
	for _, d := range due {
		if !m.descriptor.Span.Contains(d.Key) {
			continue
		}
		old, err := m.head(d.Key)
		if err != nil {
			return kv.Result{}, err
		}
		if old.there && (old.rec.ExpireAt == d.ExpireAt || mutantDueBelieved) {
			if !old.rec.ExpiredAt(m.time) && !mutantDueBelieved {
				continue
			}
			if err := m.replace(d.Key, old, nil); err != nil {
				return kv.Result{}, err
			}
			result.Count++
		}
		m.writer.DeleteDue(d)
	}
	return result, nil
}
