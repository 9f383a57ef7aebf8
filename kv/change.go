package kv

// Change is a key that a step of a state machine changed. Both fields are shared and read-only.
type Change struct {
	Key []byte
	// Record is what is stored under the key after the step; nil when it was deleted.
	Record *Record
}

// ChecksumRequest is an OpChecksum that was applied: every replica's checksum of its state at Index is wanted.
type ChecksumRequest struct {
	ID    uint64
	Index Index
}
