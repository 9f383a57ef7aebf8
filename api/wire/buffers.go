package wire

import "google.golang.org/grpc/mem"

// Buffers is the pool that messages are received into and encoded in. Up to 32 KiB its sizes are those of gRPC's own, which then
// has none below 1 MiB, and clears the whole of a buffer whenever it is taken. Server, transport and client share it with gRPC's own reading of frames.
var Buffers = newBuffers()

func newBuffers() mem.BufferPool {
	pool, err := mem.NewBinaryTieredBufferPool(8, 12, 14, 15, 16, 17, 18, 19, 20)
	if err != nil {
		panic(err) // There are no buffers of such a size on this machine.
	}
	return pool
}
