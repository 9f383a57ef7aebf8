// Package shard is the key-value state machine of one replica.
//
// It starts no goroutine, takes no lock, reads no clock and opens no socket: entries come in, effects go to a
// Writer, and what is stored already is read through a Reader. The same entries give the same results and the same
// state on every replica; a refused command is a result, and only a failed disk or a broken invariant is an error,
// which stops the node.
//
// Several entries are applied in one step, whose effects become visible together:
//
//	Begin(w) ── Apply ── Apply ── … ── Finish ── w is committed by the owner ── Committed
//	               │                     │
//	               ▼                     ▼
//	            overlay: the keys     each changed key once, the index of expiries,
//	            changed so far        and the ShardState with the applied index (T2)
//
// Reads of the machine look into the overlay first and then at the Reader, which shows the state as of the last
// committed step.
//
// Invariants:
//   - A revision is a counter, one step a write command that was carried out (R1). A key's revision is that count at
//     its last write, so it rises with every write of the key.
//   - The shard's time is the largest stamp of the batches applied, and never goes back (R4). A record whose time has
//     come is absent for every command, whether or not it was purged.
//   - keys, bytes and expiring count what is stored, records whose time has come included.
//   - Every index is applied once, in order, without a gap.
//   - The span's start never changes (S2). Both halves of the epoch only rise, and a command that changes the shape is
//     carried out only at the epoch that it was computed from.
//   - A frozen shard changes nothing but its applied index until the end of its freeze (G1).
package shard
