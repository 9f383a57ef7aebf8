package kv

// Route is by what a client chose the node: the shard, and the version of its epoch, 0 when it keeps no map.
type Route struct {
	Shard   ShardID
	Version uint64
}

// Item is a key and what is stored under it.
type Item struct {
	Key    []byte
	Record Record
}

// ScanRequest asks for one chunk of a scan.
type ScanRequest struct {
	Span     Span
	Limit    int // At most so many keys; 0 is no limit but the chunk's bytes.
	KeysOnly bool
	Level    Level
	Bytes    int // The chunk ends at or before so many, with at least one key; 0 stands for ScanChunkBytes, which is the most.
}

// ChunkBytes is where the chunk ends.
func (r *ScanRequest) ChunkBytes() int {
	if r.Bytes <= 0 {
		return ScanChunkBytes
	}
	return min(r.Bytes, ScanChunkBytes)
}

// Chunk is one shard's part of a scan, at one revision.
type Chunk struct {
	Header Header
	Items  []Item
	// Resume is the key to go on from; nil when nothing of the span is left.
	Resume []byte
}
