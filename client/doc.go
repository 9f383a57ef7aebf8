// Package client is the Go client of kvd.
//
//	c, err := client.New(client.Config{Endpoints: []string{"127.0.0.1:7400"}})
//	…
//	_, err = c.Put(ctx, []byte("hello"), []byte("world"))
//	item, found, err := c.Get(ctx, []byte("hello"))
//
// # Where a request goes
//
// The client keeps the shard map and goes straight to the node that leads a key's shard. What answers tell (another
// leader, the right descriptors) is taken at once; the whole map is asked for now and then, by one call at a time. Where
// nothing is known a request goes to any node, which passes it on.
//
// # What an error means
//
// errors.Is(err, ErrNotDone): nothing was or will be written, so it may be repeated. The client has done that itself as
// long as it was worth a try (no leader, an old map, a full queue, a node that was not reached), with growing, jittered
// pauses or those that the node asked for, within the context's deadline, or kv.RequestTimeout if it has none.
//
// errors.Is(err, ErrUnknown): the write may have been done, or may still be. It is never repeated by the client.
//
// Every error of a request says one of the two. The errors of package kv are found in it by errors.As and errors.Is:
// *kv.InvalidError, *kv.CrossShardError, kv.ErrNotANumber and so on.
//
// # Nodes that fall silent
//
// A read that has no answer after a second is tried at another node. After a second without an answer to a write the
// node is asked whether it is alive; the write waits on until its deadline or until the connection breaks, and only then
// is it unknown. A node that does not answer either is left alone by everything else, and asked in the background until
// it does.
//
// # Speed
//
// A unary call costs ten times what an operation of a Pipeline does. A program that sends much should use a Pipeline,
// and raise GOGC: the collector on a small heap costs a third of what gRPC could do.
//
// A Client and a Pipeline may be used by any number of goroutines. Keys and values that were passed in must not be
// changed before the call ends.
package client
