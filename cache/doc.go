// Package cache keeps records in memory in front of the state store and never serves a stale one.
//
// The store behind it (Ristretto, with a window before it) queues inserts, drops some, and may keep the older of two. So nothing that it
// returns is believed as such: the Guard stamps every entry, and serves it only when the stamp shows that it is
// current (rules C1 to C4 of docs/protocols.md). A table of stripes holds one word each, and a key belongs to
// the stripe that its hash picks:
//
//	 63                                      16 15             0
//	+------------------------------------------+----------------+
//	| version: changes finished on the stripe  | writers at work|
//	+------------------------------------------+----------------+
//
//	writer: the loop that applies             reader: the caller's goroutine
//	----------------------------              ------------------------------
//	Raise      writers+1                      lease check
//	   |                                      Get: load the word; hit if no writer, and the entry has
//	commit the batch: it is visible              | this word, key and incarnation, and is not expired
//	   |                                         | miss
//	Lower      writers-1, version+1,          read the state store
//	   |       in one step                       |
//	   +-- insert, if nobody else touched     Fill: insert with the word loaded before the read,
//	       the word since Raise                  if it had no writer
//
// Why a hit is current: the word was loaded during the read and showed no writer, so every change that is visible
// had been counted in its version; the entry carries that same version, and its record was read (or written)
// while the word stood there. Two keys on one stripe cost a false miss, never a wrong answer. What a store loses,
// delays or reorders costs a miss too.
//
// Who may call: any goroutine may Get and Fill. Raise and Lower bracket every path that changes data, on
// followers too; two writers may have one stripe raised at the same time. Keys and values of entries are shared
// by all readers and are read-only.
package cache
