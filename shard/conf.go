package shard

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/replica"
)

// A configuration change.
//
// The machine admits a change by its epoch and the group as it is (replica.AdmitConf), raft decides what it makes of the
// configuration (RawNode.ApplyConfChange), and the descriptor follows. It is stored in the step of the entry, the joint part too, with the applied index (T5):
// apart from it, a restart finds a joint configuration that nobody knows to be left, or a replica that
// believes itself the only voter. It is no write command and changes no key. raft refuses to remove all voters, and a
// group without any never elects, silently; so such an outcome is a broken invariant.

// ErrNoVoters: an entry would leave a group without voters.
var ErrNoVoters = errors.New("nobody would vote")

// configuration is Raft's of the group. Its lists are replaced, never changed in place.
type configuration struct {
	voters, learners, votersOutgoing, learnersNext []uint64
	autoLeave                                      bool
}

func configurationOf(st *kvdv1.ShardState) configuration {
	return configuration{st.Voters, st.Learners, st.VotersOutgoing, st.LearnersNext, st.AutoLeave}
}

// ApplyConf applies the next entry of the log, a configuration change. If it fits, apply has raft carry it out and gives
// the outcome, which is read-only from then on; a refused one is a result, and raft must not hear of it. Errors are
// those of Apply.
func (m *Machine) ApplyConf(index kv.Index, term kv.Term, change *kvdv1.ConfChange, apply func() *raftpb.ConfState) (kv.Result, error) {
	if err := m.next(index, term); err != nil {
		return kv.Result{}, err
	}
	if m.frozen != nil {
		return kv.Result{Status: kv.Frozen}, nil
	}
	if err := m.admitConf(change); err != nil {
		return kv.Result{Status: kv.Refused, Reason: err.Error()}, nil
	}
	conf := apply()
	if len(conf.GetVoters()) == 0 {
		m.failed = fmt.Errorf("shard %d: apply the configuration of entry %d: %w", m.descriptor.Shard, index, ErrNoVoters)
		return kv.Result{}, m.failed
	}
	m.conf = configuration{
		conf.GetVoters(), conf.GetLearners(), conf.GetVotersOutgoing(), conf.GetLearnersNext(), conf.GetAutoLeave(),
	}
	m.describe(replica.Reconfigure(m.descriptor, change, conf))
	return kv.Result{Status: kv.Done}, nil
}

// admitConf refuses a change that does not fit the group, or comes under an open merge, which was begun with the nodes as
// they are (G1).
func (m *Machine) admitConf(change *kvdv1.ConfChange) error {
	if m.intent != nil && !m.intent.Aborted {
		return invalid("configuration change", "not under the open merge %d", m.intent.Id)
	}
	return replica.AdmitConf(m.descriptor, change)
}
