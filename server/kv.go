package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/node"
)

// service is kvd.v1.KV and kvd.v1.Admin.
type service struct {
	kvdv1.UnimplementedKVServer
	kvdv1.UnimplementedAdminServer
	backend Backend
	// scans are those that run.
	scans     atomic.Int64
	backups   atomic.Int64 // Those that run.
	pipelines sync.Map     // *pipeline: true.
}

func (s *service) fail(op wire.Op, err error) error {
	if e, ok := err.(*kv.OverloadError); ok && e.RetryAfter == kv.RetryAfter {
		return overloaded(*e)
	}
	return wire.StatusError(op, err, s.backend.NodeAddress)
}

// refusals are the statuses of overload, by what there is too much of: a few constants. A node with too much to do must not
// make each anew, of two dozen objects.
var refusals sync.Map // kv.OverloadError to error

func overloaded(e kv.OverloadError) error {
	if known, ok := refusals.Load(e); ok {
		return known.(error)
	}
	// It is the same for reads and writes: nothing was begun.
	made, _ := refusals.LoadOrStore(e, wire.StatusError(wire.Write, &e, nil))
	return made.(error)
}

// bounded gives a request without a deadline one.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	b := node.Bound(ctx, kv.RequestTimeout)
	return b, b.End
}

// header makes the header of an answer, with the right descriptors if the request was routed by an old map.
func (s *service) header(h kv.Header, route kv.Route, key []byte) *kvdv1.ResponseHeader {
	x := wire.FromHeader(h)
	for _, d := range s.backend.Stale(route, key) {
		x.Descriptors = append(x.Descriptors, wire.FromDescriptor(d, s.backend.Leader(d.Shard)))
	}
	return x
}

// Get reads one key that fillGet has not found.
func (s *service) Get(ctx context.Context, r *kvdv1.GetRequest) (*kvdv1.GetResponse, error) {
	resp, err := s.get(ctx, r)
	if err != nil {
		return nil, s.fail(wire.Read, err)
	}
	return resp, nil
}

// get reads what was not found in memory.
func (s *service) get(ctx context.Context, r *kvdv1.GetRequest) (*kvdv1.GetResponse, error) {
	level, err := levelOf(r.GetLevel())
	if err != nil {
		return nil, err
	}
	if err := kv.CheckKey("key", r.GetKey()); err != nil {
		return nil, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	route := routeOf(r.GetHeader())
	rec, found, h, err := s.backend.Get(ctx, route, r.GetKey(), level)
	if err != nil {
		return nil, err
	}
	resp := getResponse(rec, found, h)
	s.addStale(resp.Header, route, r.GetKey())
	return resp, nil
}

// mayTry tells whether a read may be answered from memory.
func mayTry(r *kvdv1.GetRequest) bool {
	return r.GetLevel() == kvdv1.Level_LINEARIZABLE && len(r.GetKey()) > 0
}

// fillGet makes an empty answer one from memory, if there is one. Nothing keeps the request then, or its key. The request has come
// before the call (L3).
func (s *service) fillGet(a *getAnswer, r *kvdv1.GetRequest) bool {
	if !mayTry(r) {
		return false
	}
	rec, found, h, ok := s.backend.TryGet(s.backend.Moment(), r.GetKey())
	if !ok {
		return false
	}
	s.found(a, r, rec, found, h)
	return true
}

// found makes an empty answer one of what was found.
func (s *service) found(a *getAnswer, r *kvdv1.GetRequest, rec kv.Record, found bool, h kv.Header) {
	a.fill(rec, found, h)
	s.addStale(&a.header, routeOf(r.GetHeader()), r.GetKey())
}

func (s *service) addStale(h *kvdv1.ResponseHeader, route kv.Route, key []byte) {
	if route.Version == 0 {
		return
	}
	for _, d := range s.backend.Stale(route, key) {
		h.Descriptors = append(h.Descriptors, wire.FromDescriptor(d, s.backend.Leader(d.Shard)))
	}
}

// batchWorkers bounds the reads of a BatchGet that wait at the same time.
const batchWorkers = 64

// BatchGet reads many keys, each linearizable on its own.
func (s *service) BatchGet(ctx context.Context, r *kvdv1.BatchGetRequest) (*kvdv1.BatchGetResponse, error) {
	if n := len(r.GetKeys()); n > kv.BatchGetKeysMax {
		return nil, s.fail(wire.Read, &kv.InvalidError{Field: "keys", Bound: fmt.Sprintf("at most %d, are %d", kv.BatchGetKeysMax, n)})
	}
	for i, key := range r.GetKeys() {
		if err := kv.CheckKey(fmt.Sprintf("keys[%d]", i), key); err != nil {
			return nil, s.fail(wire.Read, err)
		}
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	out := &kvdv1.BatchGetResponse{}
	size := 0
	for first := 0; first < len(r.Keys); first += batchWorkers {
		keys := r.Keys[first:min(first+batchWorkers, len(r.Keys))]
		results, err := s.getAll(ctx, r, keys)
		if err != nil {
			return nil, s.fail(wire.Read, err)
		}
		for i, g := range results {
			if size += proto.Size(g) + 8; size > kv.AnswerBytesMax-1024 && first+i > 0 {
				out.KeysLeft = uint32(len(r.Keys) - first - i)
				return out, nil
			}
			out.Results = append(out.Results, g)
		}
	}
	return out, nil
}

// tryAll looks for keys in memory, if the level allows it.
func (s *service) tryAll(level kvdv1.Level, keys [][]byte) []node.Read {
	if level != kvdv1.Level_LINEARIZABLE {
		return nil
	}
	reads := make([]node.Read, len(keys))
	for i, key := range keys {
		reads[i].Key = key
	}
	s.backend.TryGets(s.backend.Moment(), reads)
	return reads
}

func (s *service) getAll(ctx context.Context, r *kvdv1.BatchGetRequest, keys [][]byte) ([]*kvdv1.GetResponse, error) {
	results, failed := make([]*kvdv1.GetResponse, len(keys)), make(chan error, len(keys))
	reads, waits := s.tryAll(r.GetLevel(), keys), 0
	for i, key := range keys {
		get := &kvdv1.GetRequest{Header: r.Header, Key: key, Level: r.Level}
		if reads != nil && reads[i].Ok {
			a := &getAnswer{}
			s.found(a, get, reads[i].Record, reads[i].Found, reads[i].Header)
			results[i] = &a.response
			continue
		}
		waits++
		go func() {
			var err error
			results[i], err = s.get(ctx, get)
			failed <- err
		}()
	}
	var first error
	for range waits {
		if err := <-failed; err != nil && first == nil {
			first = err
		}
	}
	return results, first
}

// write carries a command out.
func (s *service) write(ctx context.Context, h *kvdv1.RequestHeader, c *kv.Command, err error) (kv.Result, *kvdv1.ResponseHeader, error) {
	if err != nil {
		return kv.Result{}, nil, s.fail(wire.Write, err)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	route := routeOf(h)
	result, header, err := s.backend.Write(ctx, route, c)
	if err != nil {
		return kv.Result{}, nil, s.fail(wire.Write, err)
	}
	return result, s.header(header, route, c.Key), nil
}

// Put writes one key.
func (s *service) Put(ctx context.Context, r *kvdv1.PutRequest) (*kvdv1.PutResponse, error) {
	c, err := putCommand(r)
	result, h, err := s.write(ctx, r.GetHeader(), c, err)
	if err != nil {
		return nil, err
	}
	return putResponse(result, h), nil
}

// Delete removes one key.
func (s *service) Delete(ctx context.Context, r *kvdv1.DeleteRequest) (*kvdv1.DeleteResponse, error) {
	c, err := deleteCommand(r)
	result, h, err := s.write(ctx, r.GetHeader(), c, err)
	if err != nil {
		return nil, err
	}
	return deleteResponse(result, h), nil
}

// Increment adds to a counter.
func (s *service) Increment(ctx context.Context, r *kvdv1.IncrementRequest) (*kvdv1.IncrementResponse, error) {
	c, err := incrementCommand(r)
	result, h, err := s.write(ctx, r.GetHeader(), c, err)
	if err != nil {
		return nil, err
	}
	return incrementResponse(result, h), nil
}

// Txn compares and then does one of two lists.
func (s *service) Txn(ctx context.Context, r *kvdv1.TxnRequest) (*kvdv1.TxnResponse, error) {
	c, err := txnCommand(r)
	result, h, err := s.write(ctx, r.GetHeader(), c, err)
	if err != nil {
		return nil, err
	}
	return txnResponse(result, h), nil
}

// deleteRangeReserve is left of a deadline for the answer that says where to go on.
const deleteRangeReserve = 50 * time.Millisecond

// DeleteRange removes the keys of a span, chunk by chunk. "Not done" would be wrong once a chunk has removed keys: what
// refuses a later one ends the answer early, with the count and the key to go on from.
func (s *service) DeleteRange(ctx context.Context, r *kvdv1.DeleteRangeRequest) (*kvdv1.DeleteRangeResponse, error) {
	span, err := spanOf(r.GetPrefix(), r.GetStart(), r.GetEnd())
	if err != nil {
		return nil, s.fail(wire.Write, err)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	deadline, _ := ctx.Deadline()
	out := &kvdv1.DeleteRangeResponse{}
	for {
		next, h, count, err := s.deleteChunk(ctx, routeOf(r.GetHeader()), span)
		if err != nil && out.Count > 0 && kv.OutcomeOf(err) == kv.NotDone && !errors.Is(err, kv.ErrUnknown) {
			out.Resume = span.Start
			return out, nil
		}
		if err != nil {
			return nil, s.fail(wire.Write, err)
		}
		out.Count += uint64(count)
		out.Header = wire.FromHeader(h)
		if next == nil {
			return out, nil
		}
		if time.Until(deadline) < deleteRangeReserve {
			out.Resume = next
			return out, nil
		}
		span.Start = next
	}
}

// deleteChunk removes the first keys of a span in the shard of its start; next is nil at the end of the span.
func (s *service) deleteChunk(ctx context.Context, route kv.Route, span kv.Span) (next []byte, h kv.Header, count int, err error) {
	meta, _ := s.backend.Meta()
	if meta == nil {
		return nil, h, 0, kv.ErrNoMap
	}
	start := span.Start
	if len(start) == 0 {
		start = []byte{0}
	}
	if span.Empty() {
		return nil, h, 0, nil
	}
	// The shard's own end bounds the chunk; the machine tells where to go on.
	end := shardEnd(meta, start)
	rest := end
	if len(span.End) > 0 && (len(end) == 0 || string(span.End) <= string(end)) {
		end, rest = span.End, nil
	}
	result, h, err := s.backend.Write(ctx, route, &kv.Command{Op: kv.OpDeleteRange, Key: start, End: end, Limit: kv.DeleteChunkMax})
	if err != nil {
		return nil, h, 0, err
	}
	if result.Resume != nil {
		return result.Resume, h, result.Count, nil
	}
	if len(rest) == 0 {
		return nil, h, result.Count, nil
	}
	return rest, h, result.Count, nil
}

func shardEnd(m *kvdv1.MetaState, key []byte) []byte {
	for _, d := range m.Descriptors {
		if len(d.End) == 0 || string(key) < string(d.End) {
			return d.End
		}
	}
	return nil
}

// Scan streams the keys of a span, a chunk a message.
func (s *service) Scan(r *kvdv1.ScanRequest, stream kvdv1.KV_ScanServer) error {
	span, err := spanOf(r.GetPrefix(), r.GetStart(), r.GetEnd())
	level, unsupported := levelOf(r.GetLevel())
	if err == nil {
		err = unsupported
	}
	if err == nil && r.GetLimit() > 1<<40 {
		err = &kv.InvalidError{Field: "limit", Bound: "at most 2^40"}
	}
	if err != nil {
		return s.fail(wire.Read, err)
	}
	left := int(r.GetLimit())
	route := routeOf(r.GetHeader())
	defer s.scans.Add(-1)
	if s.scans.Add(1) > kv.ScansMax {
		return s.fail(wire.Read, &kv.OverloadError{What: "the number of scans", RetryAfter: kv.RetryAfter})
	}
	for {
		ctx, cancel := bounded(stream.Context())
		chunk, err := s.backend.ScanChunk(ctx, route, kv.ScanRequest{
			Span: span, Limit: left, KeysOnly: r.GetKeysOnly(), Level: level, Bytes: kv.ScansBytesMax / int(s.scans.Load()),
		})
		cancel()
		if err != nil {
			return s.fail(wire.Read, err)
		}
		out := &kvdv1.ScanResponse{Header: s.header(chunk.Header, route, span.Start), Resume: chunk.Resume}
		for _, item := range chunk.Items {
			out.Items = append(out.Items, &kvdv1.KeyValue{
				Key: item.Key, Value: item.Record.Value, Revision: uint64(item.Record.Revision), ExpireAtMs: item.Record.ExpireAt,
			})
		}
		if err := stream.Send(out); err != nil {
			return err
		}
		if chunk.Resume == nil {
			return nil
		}
		if r.GetLimit() > 0 { // Without one, left stays 0: no limit.
			if left -= len(chunk.Items); left <= 0 {
				return nil
			}
		}
		span.Start = chunk.Resume
	}
}

// Map gives the shard map and the nodes' addresses.
func (s *service) Map(_ context.Context, r *kvdv1.MapRequest) (*kvdv1.MapResponse, error) {
	meta, _ := s.backend.Meta()
	if meta == nil {
		return nil, s.fail(wire.Read, kv.ErrNoMap)
	}
	out := &kvdv1.MapResponse{Version: meta.Version, ClusterId: meta.ClusterId}
	if r.GetKnownVersion() >= meta.Version {
		return out, nil
	}
	for _, d := range meta.Descriptors {
		out.Descriptors = append(out.Descriptors, &kvdv1.Descriptor{
			Shard: d.Shard, Start: d.Start, End: d.End, Epoch: d.Epoch, Replicas: d.Replicas, Leader: uint64(s.backend.Leader(kv.ShardID(d.Shard))),
		})
	}
	for _, n := range meta.Nodes {
		out.Nodes = append(out.Nodes, n.Node)
	}
	return out, nil
}

// Shards describes all shards.
func (s *service) Shards(ctx context.Context, _ *kvdv1.ShardsRequest) (*kvdv1.ShardsResponse, error) {
	shards, silent, err := s.backend.Shards(ctx)
	if err != nil {
		return nil, s.fail(wire.Read, err)
	}
	out := &kvdv1.ShardsResponse{Shards: shards}
	for _, id := range silent {
		out.SilentNodes = append(out.SilentNodes, uint64(id))
	}
	return out, nil
}

// Nodes describes the members.
func (s *service) Nodes(ctx context.Context, _ *kvdv1.NodesRequest) (*kvdv1.NodesResponse, error) {
	nodes, err := s.backend.Nodes(ctx)
	if err != nil {
		return nil, s.fail(wire.Read, err)
	}
	return &kvdv1.NodesResponse{Nodes: nodes}, nil
}

// Status describes this node.
func (s *service) Status(ctx context.Context, _ *kvdv1.StatusRequest) (*kvdv1.StatusResponse, error) {
	st, err := s.backend.Local(ctx)
	if err != nil {
		return nil, s.fail(wire.Read, err)
	}
	return st, nil
}

// GetSettings lists all settings.
func (s *service) GetSettings(ctx context.Context, _ *kvdv1.GetSettingsRequest) (*kvdv1.GetSettingsResponse, error) {
	list, err := s.backend.Settings(ctx)
	if err != nil {
		return nil, s.fail(wire.Read, err)
	}
	return &kvdv1.GetSettingsResponse{Settings: list}, nil
}

// SetSetting changes a setting.
func (s *service) SetSetting(ctx context.Context, r *kvdv1.SetSettingRequest) (*kvdv1.SetSettingResponse, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := s.backend.SetSetting(ctx, r.GetName(), r.GetValue()); err != nil {
		return nil, s.fail(wire.Write, err)
	}
	list, err := s.backend.Settings(ctx)
	if err != nil {
		return nil, s.fail(wire.Read, err)
	}
	out := &kvdv1.SetSettingResponse{}
	for _, x := range list {
		if x.Name == r.GetName() {
			out.Setting = x
			if r.GetValue() != "" {
				x.Value = r.GetValue() // This node may hear of it a moment later.
			}
		}
	}
	return out, nil
}
