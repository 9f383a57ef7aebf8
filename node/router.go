package node

import (
	"context"
	"errors"
	"sync"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/api/wire"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/shard"
)

// attemptMax bounds one attempt to read from another node: one that is silent is not waited for, another is asked.
const attemptMax = time.Second

// lookup refuses a command that breaks a bound, and finds its shard: all its keys lie in one. The map is
// this node's own copy: no request waits for the meta group (M7).
func (n *Node) lookup(c *kv.Command) (*kv.Descriptor, error) {
	if err := shard.CheckCommand(c); err != nil {
		return nil, err
	}
	p := n.meta.Load()
	if p == nil || !n.serving.Load() {
		return nil, n.notServing()
	}
	var first *kv.Descriptor
	var all []kv.ShardID
	c.Keys(func(key []byte) bool {
		d := n.locate(p, key)
		if first == nil {
			first, all = d, []kv.ShardID{d.Shard}
		} else if d.Shard != first.Shard {
			for _, known := range all {
				if known == d.Shard {
					return true
				}
			}
			all = append(all, d.Shard)
		}
		return true
	})
	if len(all) > 1 {
		return nil, &kv.CrossShardError{Shards: all}
	}
	if first == nil {
		return nil, &kv.InvalidError{Field: "txn", Bound: "at least one key"}
	}
	return first, nil
}

func (n *Node) notServing() error {
	if n.stopping.Load() {
		return kv.ErrStopping
	}
	return kv.ErrNoMap
}

// Leader is the node that leads a shard as far as this one knows; 0 when unknown.
func (n *Node) Leader(id kv.ShardID) kv.NodeID {
	if v := n.view(id); v != nil {
		s := v.state.Load()
		if _, member := s.descriptor.OnNode(n.self.Node); member || s.lead != 0 {
			return s.lead
		}
	}
	if hint, ok := n.leaders.Load(id); ok {
		return hint.(kv.NodeID)
	}
	return 0
}

// learn takes what an answer tells of a shard's leader: a member of the cluster, or 0 for nobody.
func (n *Node) learn(id kv.ShardID, leader kv.NodeID) {
	if leader != 0 {
		if _, member := n.Address(leader); !member {
			return
		}
	}
	// Many learn the same at a time.
	if known, ok := n.leaders.Load(id); !ok || known != leader {
		n.leaders.Store(id, leader)
	}
}

// route picks the node for an attempt: the leader if it is known, else one replica after the other. A learner may not have
// heard of the leader yet, and not soon either.
func (n *Node) route(d *kv.Descriptor, attempt int) kv.NodeID {
	if leader := n.Leader(d.Shard); leader != 0 {
		return leader
	}
	if r, member := d.OnNode(n.self.Node); member && !r.Learner && n.view(d.Shard) != nil {
		return n.self.Node // It will hear of the leader first.
	}
	for i := range d.Replicas {
		if r := d.Replicas[(attempt+i)%len(d.Replicas)]; !r.Learner {
			return r.Node
		}
	}
	return d.Replicas[attempt%len(d.Replicas)].Node
}

// Write carries a command out, on this node or the one that leads the shard, and tries again for a while, within the
// deadline, what was not done for want of a leader.
func (n *Node) Write(ctx context.Context, route kv.Route, c *kv.Command) (kv.Result, kv.Header, error) {
	// It counts from here to its end, also while it waits for a leader or for another node.
	size := int64(c.Size())
	defer n.budget.held.Add(-size)
	if n.budget.held.Add(size) > kv.ProposalBytesMax {
		return kv.Result{}, kv.Header{}, errBusy
	}
	encoded := shard.EncodeCommand(c)
	for a := (attempts{n: n, until: patience(route)}); ; {
		d, err := n.lookup(c)
		if err != nil {
			return kv.Result{}, kv.Header{}, err
		}
		result, h, err := n.write(ctx, d, encoded, c.Size(), a.next(d))
		if err == nil {
			return finish(result, h)
		}
		if !a.again(ctx, err) {
			return kv.Result{}, kv.Header{}, err
		}
	}
}

// write is one attempt.
func (n *Node) write(ctx context.Context, d *kv.Descriptor, c *kvdv1.Command, size int, to kv.NodeID) (kv.Result, kv.Header, error) {
	if to != n.self.Node {
		return n.forwardWrite(ctx, d, c, size, to)
	}
	v := n.view(d.Shard)
	if v == nil {
		return kv.Result{}, kv.Header{}, &kv.NotLeaderError{Shard: d.Shard}
	}
	result, err := n.await(ctx, v, c, size)
	return n.written(v, result, err)
}

// written makes the answer of a write that ended here.
func (n *Node) written(v *View, result kv.Result, err error) (kv.Result, kv.Header, error) {
	switch {
	case err == nil && result.Status == kv.WrongShard:
		err = &kv.StaleEpochError{Descriptors: []*kv.Descriptor{v.state.Load().descriptor}}
	case err == nil && result.Status == kv.Frozen:
		err = &kv.NotLeaderError{Shard: v.shard}
	}
	h := kv.Header{Shard: v.shard, Epoch: v.state.Load().descriptor.Epoch, Revision: result.Revision, Node: n.self.Node}
	return result, h, err
}

// finish turns the results that are errors for callers into such.
func finish(r kv.Result, h kv.Header) (kv.Result, kv.Header, error) {
	switch r.Status {
	case kv.NotANumber:
		return r, h, kv.ErrNotANumber
	case kv.Refused:
		return r, h, &kv.InvalidError{Field: "request", Bound: r.Reason}
	}
	return r, h, nil
}

func (n *Node) forwardWrite(ctx context.Context, d *kv.Descriptor, c *kvdv1.Command, size int, to kv.NodeID) (kv.Result, kv.Header, error) {
	began, limit := n.now(), n.budget.to(to)
	if !limit.enter(int64(size)) {
		return kv.Result{}, kv.Header{}, &kv.OverloadError{What: "the queue of writes to other nodes", RetryAfter: kv.RetryAfter}
	}
	defer limit.bytes.Add(-int64(size))
	listening, cancel := n.whileHeard(ctx, to)
	defer cancel()
	resp, sent, err := n.network.Forward(listening, to, &kvdv1.ForwardRequest{Request: &kvdv1.ForwardRequest_Write{Write: c}})
	if err != nil {
		limit.leave()
		n.learn(d.Shard, 0)
		if !sent {
			return kv.Result{}, kv.Header{}, &kv.NotLeaderError{Shard: d.Shard}
		}
		if ctx.Err() != nil {
			return kv.Result{}, kv.Header{}, ctx.Err()
		}
		return kv.Result{}, kv.Header{}, errors.Join(kv.ErrUnknown, err)
	}
	err = wire.ToError(wire.Write, resp.Error)
	if errors.As(err, new(*kv.OverloadError)) {
		limit.refused(began, n.now())
	} else {
		limit.answered(began, n.now())
	}
	if err != nil {
		return kv.Result{}, kv.Header{}, err
	}
	n.learn(d.Shard, to)
	result, err := shard.DecodeResult(resp.GetWrite())
	return result, wire.ToHeader(resp.Header), err
}

// silentMax is after how much silence a node that a write was passed to is given up; the write is unknown then.
const silentMax = 2 * time.Second

// whileHeard gives a context that ends when a node is not heard of any more.
func (n *Node) whileHeard(ctx context.Context, to kv.NodeID) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	l := &listening{}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = time.AfterFunc(silentMax, func() {
		if time.Since(time.Unix(0, n.network.LastHeard(to))) > silentMax {
			cancel()
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if !l.over {
			l.timer.Reset(silentMax / 8)
		}
	})
	return ctx, func() {
		cancel()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.over = true
		l.timer.Stop()
	}
}

// listening looks now and then whether a node is heard.
type listening struct {
	mu    sync.Mutex
	timer *time.Timer
	over  bool
}

// Submit is Write without waiting, for at most until a deadline; done is called once, from any goroutine.
func (n *Node) Submit(ctx context.Context, deadline time.Time, route kv.Route, c *kv.Command, done func(kv.Result, kv.Header, error)) {
	d, err := n.lookup(c)
	if err != nil {
		done(kv.Result{}, kv.Header{}, err)
		return
	}
	v := n.view(d.Shard)
	if v == nil || !v.state.Load().leader {
		if to := n.Leader(d.Shard); to != 0 && n.budget.to(to).full() {
			done(kv.Result{}, kv.Header{}, errBusy)
			return
		}
		n.writeAside(ctx, deadline, route, c, done)
		return
	}
	n.submit(v, shard.EncodeCommand(c), c.Size(), false, func(r kv.Result, err error) {
		result, h, err := n.written(v, r, err)
		if err == nil {
			done(finish(result, h))
			return
		}
		if _, moved := errors.AsType[*kv.NotLeaderError](err); moved {
			n.writeAside(ctx, deadline, route, c, done)
			return
		}
		done(result, h, err)
	})
}

// writeAside is Write in a goroutine of its own.
func (n *Node) writeAside(ctx context.Context, deadline time.Time, route kv.Route, c *kv.Command, done func(kv.Result, kv.Header, error)) {
	go func() {
		ctx, cancel := context.WithDeadline(ctx, deadline)
		defer cancel()
		done(n.Write(ctx, route, c))
	}()
}

// Moment is the time since the machine's boot, with the time that it slept.
func (n *Node) Moment() time.Duration { return bootTime() }

// TryGet answers a linearizable read from memory, if this node may; at is a Moment after the request for it has come.
func (n *Node) TryGet(at time.Duration, key []byte) (rec kv.Record, found bool, h kv.Header, ok bool) {
	l := n.locals.Load()
	if l == nil || !n.serving.Load() {
		return kv.Record{}, false, kv.Header{}, false
	}
	v := l.find(key)
	if v == nil {
		return kv.Record{}, false, kv.Header{}, false
	}
	g, done := n.reader.Look(v, key, ByLease(at))
	return g.Record, g.Found, g.Header, done && g.Ok
}

// TryGets is TryGet for several keys, some tens.
func (n *Node) TryGets(at time.Duration, reads []Read) {
	l := n.locals.Load()
	if l == nil || !n.serving.Load() {
		for i := range reads {
			reads[i].Get = Get{}
		}
		return
	}
	n.reader.LookAll(l, reads, ByLease(at))
}

// Get reads a key, on this node or the one that leads the shard. For a linearizable read TryGet was asked before: the first attempt does
// not look into memory again.
func (n *Node) Get(ctx context.Context, route kv.Route, key []byte, level kv.Level) (kv.Record, bool, kv.Header, error) {
	begin := n.reader.Missed
	for a := (attempts{n: n, until: patience(route)}); ; {
		p := n.meta.Load()
		if p == nil || !n.serving.Load() {
			return kv.Record{}, false, kv.Header{}, n.notServing()
		}
		d := n.locate(p, key)
		if level == kv.Eventual && n.view(d.Shard) != nil {
			g, err := n.get(n.view(d.Shard), key, ByNothing(), n.reader.Look)
			if err != nil || g.Ok {
				return g.Record, g.Found, g.Header, err
			}
		}
		g, err := n.getFrom(ctx, d, key, a.next(d), begin)
		if err == nil {
			return g.Record, g.Found, g.Header, nil
		}
		if !a.again(ctx, err) {
			return kv.Record{}, false, kv.Header{}, err
		}
		begin = n.reader.Look // It may be there by now.
	}
}

// getFrom is one attempt of a linearizable read; begin is how it begins if the shard is led here.
func (n *Node) getFrom(ctx context.Context, d *kv.Descriptor, key []byte, to kv.NodeID, begin look) (Get, error) {
	if to != n.self.Node {
		return n.forwardGet(ctx, d, key, to)
	}
	return n.getHere(ctx, d.Shard, key, begin)
}

// look is how a read begins.
type look func(v *View, key []byte, proof Proof) (g Get, done bool)

// getHere reads a key of a shard that this node should lead; look is how it begins if there is a lease.
func (n *Node) getHere(ctx context.Context, id kv.ShardID, key []byte, look look) (Get, error) {
	v := n.view(id)
	if v == nil {
		return Get{}, &kv.NotLeaderError{Shard: id}
	}
	g, err := n.get(v, key, ByLease(bootTime()), look)
	if err != nil || g.Ok {
		return g, err
	}
	if err := n.readIndex(ctx, v); err != nil {
		return Get{}, err
	}
	g, err = n.get(v, key, ByReadIndex(), n.reader.Look)
	if err == nil && !g.Ok {
		err = &kv.NotLeaderError{Shard: id}
	}
	return g, err
}

// readIndex waits until what is applied here is new enough for a linearizable read.
func (n *Node) readIndex(ctx context.Context, v *View) error {
	if s := v.state.Load(); !s.leader {
		return &kv.NotLeaderError{Shard: v.shard, Leader: s.lead}
	}
	_, err := n.await(ctx, v, nil, 0)
	return err
}

// get does the steps of a read.
func (n *Node) get(v *View, key []byte, proof Proof, look look) (Get, error) {
	g, done := look(v, key, proof)
	if done {
		return g, nil
	}
	if err := n.reader.Load(&g, key); err != nil {
		return Get{}, err
	}
	n.reader.Finish(&g, key)
	return g, nil
}

// forwardRead passes a read on. A node that is silent counts as one that does not lead.
func (n *Node) forwardRead(ctx context.Context, d *kv.Descriptor, r *kvdv1.ForwardRequest, to kv.NodeID) (*kvdv1.ForwardResponse, error) {
	attempt, cancel := context.WithTimeout(ctx, attemptMax)
	defer cancel()
	resp, _, err := n.network.Forward(attempt, to, r)
	if err != nil {
		n.learn(d.Shard, 0)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &kv.NotLeaderError{Shard: d.Shard}
	}
	if err := wire.ToError(wire.Read, resp.Error); err != nil {
		return nil, err
	}
	n.learn(d.Shard, to)
	return resp, nil
}

func (n *Node) forwardGet(ctx context.Context, d *kv.Descriptor, key []byte, to kv.NodeID) (Get, error) {
	resp, err := n.forwardRead(ctx, d, &kvdv1.ForwardRequest{Request: &kvdv1.ForwardRequest_Get{Get: &kvdv1.ForwardGet{Key: key}}}, to)
	if err != nil {
		return Get{}, err
	}
	g := Get{Ok: true, Header: wire.ToHeader(resp.Header)}
	if f := resp.GetFound(); f != nil {
		g.Found, g.Record = true, kv.Record{Value: f.Value, Revision: kv.Revision(f.Revision), ExpireAt: f.ExpireAtMs}
	}
	return g, nil
}

// ScanChunk reads one shard's part of a span, at one revision.
func (n *Node) ScanChunk(ctx context.Context, route kv.Route, r kv.ScanRequest) (kv.Chunk, error) {
	for a := (attempts{n: n, until: patience(route)}); ; {
		p := n.meta.Load()
		if p == nil || !n.serving.Load() {
			return kv.Chunk{}, n.notServing()
		}
		d := n.locate(p, r.Span.Start)
		if v := n.view(d.Shard); v != nil && r.Level == kv.Eventual {
			chunk, err := n.scanHere(ctx, v, r)
			if !errors.As(err, new(*kv.NotLeaderError)) {
				return chunk, err
			}
		}
		chunk, err := n.scanFrom(ctx, d, r, a.next(d))
		if err == nil {
			return chunk, nil
		}
		if !a.again(ctx, err) {
			return kv.Chunk{}, err
		}
	}
}

func (n *Node) scanFrom(ctx context.Context, d *kv.Descriptor, r kv.ScanRequest, to kv.NodeID) (kv.Chunk, error) {
	if v := n.view(d.Shard); v != nil && to == n.self.Node {
		return n.scanHere(ctx, v, r)
	}
	resp, err := n.forwardRead(ctx, d, &kvdv1.ForwardRequest{Request: &kvdv1.ForwardRequest_Scan{Scan: &kvdv1.ForwardScan{
		Start: r.Span.Start, End: r.Span.End, Limit: uint64(r.Limit), KeysOnly: r.KeysOnly, Bytes: uint64(r.ChunkBytes()),
	}}}, to)
	if err != nil {
		return kv.Chunk{}, err
	}
	scan := resp.GetScan()
	chunk := kv.Chunk{Header: wire.ToHeader(resp.Header), Resume: scan.GetResume()}
	if len(chunk.Resume) == 0 {
		chunk.Resume = nil
	}
	for _, item := range scan.GetItems() {
		chunk.Items = append(chunk.Items, kv.Item{Key: item.Key, Record: kv.Record{
			Value: item.Value, Revision: kv.Revision(item.Revision), ExpireAt: item.ExpireAtMs,
		}})
	}
	return chunk, nil
}

func (n *Node) scanHere(ctx context.Context, v *View, r kv.ScanRequest) (kv.Chunk, error) {
	s := v.state.Load()
	v.wanted.Store(true)
	if r.Level != kv.Eventual && (!s.leader || bootTime() >= s.leaseUntil) {
		if err := n.readIndex(ctx, v); err != nil {
			return kv.Chunk{}, err
		}
	}
	return n.reader.Scan(v, r)
}

// NodeAddress gives the address of a node, empty when unknown.
func (n *Node) NodeAddress(id kv.NodeID) string {
	address, _ := n.Address(id)
	return address
}
