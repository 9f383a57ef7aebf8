package storage

// Crasher is a store that can lose what a crash of the machine would lose.
type Crasher interface {
	// Crash forgets what was not durable. keep is asked how many of the n writes that were not durable survive, in
	// their order; it answers from 0 to n. Everything that was opened on the store is dead; the store itself is as if
	// it had been opened anew.
	Crash(keep func(n int) int) error
	// Hash is a checksum over the contents.
	Hash() (uint64, error)
}
