//go:build kvdtest

package transport

import (
	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/internal/faults"
)

// leave gives the messages that leave now; those that are late, and copies, are queued when their time has come.
func (p *peer) leave(messages []*kvdv1.RaftMessage) []*kvdv1.RaftMessage {
	return faults.Pass(p.id, messages, func(m *kvdv1.RaftMessage) {
		if p.ctx.Err() == nil {
			p.put([]*kvdv1.RaftMessage{m})
		}
	})
}
