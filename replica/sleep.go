package replica

import "time"

// Sleep ends the lease: the shard goes to sleep, and does not tick until it is woken (M6).
func (r *Replica) Sleep() { r.lease.until = 0 }

// Woken goes on after a sleep: a leader asks its followers at once, which wakes them.
func (r *Replica) Woken(now time.Duration) error {
	if r.canAsk() && !r.lease.asking {
		r.begin(now)
	}
	return nil
}
