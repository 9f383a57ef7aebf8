package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/cache"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
	"github.com/kvdstore/kvd/storage"
)

// The clock of a new cluster (L9): fixed by its founding.
const (
	tickMs        = 50
	electionTicks = 15
)

// Network is how the node reaches others.
type Network interface {
	// Send queues Raft's messages for a node, or drops them; it never blocks.
	Send(to kv.NodeID, messages []*kvdv1.RaftMessage)
	// Forward passes a request on. With sent false it surely was not done.
	Forward(ctx context.Context, to kv.NodeID, r *kvdv1.ForwardRequest) (resp *kvdv1.ForwardResponse, sent bool, err error)
	Local(ctx context.Context, to kv.NodeID) (*kvdv1.StatusResponse, error)
	Explain(ctx context.Context, to kv.NodeID, r *kvdv1.ExplainRequest) (*kvdv1.ExplainResponse, error)
	SendSnapshot(ctx context.Context, to kv.NodeID, header *kvdv1.SnapshotHeader, next func() (*kvdv1.SnapshotChunk, bool, error)) error
	// WatchMeta calls f with a node's metadata if it is newer than a version, and with each newer one, until the stream
	// breaks.
	WatchMeta(ctx context.Context, from kv.NodeID, version uint64, f func(*kvdv1.MetaState)) error
	// Follow keeps a stream to each of these nodes, and to no other, at the addresses that Node.Address gives now.
	Follow(nodes []kv.NodeID)
	// LastHeard is when a node last said that it reads, in nanoseconds of Unix time; 0 for never.
	LastHeard(of kv.NodeID) int64
	Close()
}

// Self is who a node is, once it belongs to a cluster.
type Self struct {
	Cluster kv.ClusterID
	Node    kv.NodeID
	Life    kv.Life
}

// Config is what a node is started with.
type Config struct {
	Name, DataDir string
	// Advertise is the address that others reach this node at.
	Advertise, Region, Version string
	// Initial are the nodes of a static cluster; empty is this node alone.
	Initial []FoundNode
	Token   string
	// Members are addresses of nodes of a cluster that this one joins, at most kv.FoundingNodesMax; it then founds none. A
	// store that belongs to a cluster already heeds neither them nor Initial.
	Members []string
	// Cuts are the first keys of all initial shards but the first, and Replicas the wish for each.
	Cuts     [][]byte
	Replicas int
	// MemoryBytes sizes the cache, the memtables and the queues.
	MemoryBytes int64
	Logger      *slog.Logger
	// Network makes the network when it is known who the node is.
	Network func(n *Node, self Self) Network
	// Ask sends a step of the founding to an address.
	Ask func(ctx context.Context, address string, r *kvdv1.FoundRequest) (*kvdv1.FoundResponse, error)
	// AskToJoin asks the node at an address to let this one into its cluster; wanted with Members.
	AskToJoin func(ctx context.Context, address string, r *kvdv1.JoinRequest) (*kvdv1.JoinResponse, error)
	// Fatal is called once when the node cannot go on; it is to end the process. The error is ErrRemoved if that is for ever.
	Fatal func(error)
}

// Node is a running node.
type Node struct {
	Config
	lock      io.Closer
	admission admission

	record  *kvdv1.StoreRecord
	self    Self
	began   time.Time
	log     *storage.PebbleLog
	state   *storage.PebbleState
	blocks  *pebble.Cache
	guard   *cache.Guard
	core    *Core
	locals  atomic.Pointer[locals]
	reader  Reader
	network Network

	inbox     *inbox
	logWriter logWriter
	checksums sync.Mutex
	pace      *rate.Limiter // Of the snapshots that are sent.
	surveys   sync.Mutex
	ctx       context.Context // Of the background work.
	cancel    context.CancelFunc
	loopEnd   context.CancelFunc
	work      sync.WaitGroup // The background work.
	loops     sync.WaitGroup
	once      sync.Once
	starting  sync.Mutex // Held by Start; Stop waits for it.

	meta     atomic.Pointer[published]
	leaders  sync.Map // Hints: kv.ShardID to kv.NodeID.
	events   events
	budget   *budget
	callers  *callers
	disk     diskWatch
	turns    atomic.Uint64 // Begun and ended: odd while one is under way.
	lag      lag
	stopping atomic.Bool
	serving  atomic.Bool
	// confirmed tells that a member has given its metadata since the start.
	confirmed  atomic.Bool
	membership sync.Mutex // Held while the network is told of the members.
}

// published is metadata as readers see it.
type published struct {
	shards  *raftmeta.Map
	newer   chan struct{} // Closed when there is newer.
	setting *raftmeta.Settings
}

// Open locks the data directory and looks what it holds. Afterwards Found and Join answer other nodes, and Start starts.
func Open(c Config) (*Node, error) {
	n := &Node{Config: c, began: time.Now(), inbox: newInbox(), budget: newBudget(), callers: newCallers(), pace: newPace()}
	n.logWriter.wake = make(chan struct{}, 1)
	var err error
	if n.lock, err = storage.LockDir(c.DataDir); err != nil {
		return nil, err
	}
	record, _, err := storage.ReadStore(c.DataDir)
	if err == nil {
		err = n.prepare(record)
	}
	if err != nil {
		return nil, errors.Join(err, n.lock.Close())
	}
	return n, nil
}

// prepare decides by what the store holds, and else by the configuration, how this node comes to a cluster.
func (n *Node) prepare(record *kvdv1.StoreRecord) error {
	var seed [32]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return err
	}
	chance := mathrand.New(mathrand.NewChaCha8(seed))
	write := func(r *kvdv1.StoreRecord) error { return storage.WriteStore(n.DataDir, r) }
	joins := len(n.Members) > 0 && mayJoin(record)
	switch {
	case joins && len(n.Initial) > 0:
		return &kv.InvalidError{Field: "join", Bound: "not together with initial-cluster: this data directory belongs to no cluster yet, and either joins one or founds one"}
	case record.GetPhase() == kvdv1.StoreRecord_JOINING && !joins:
		return &kv.InvalidError{Field: "join", Bound: "must be given: this data directory was about to join a cluster, which may know it already; empty it to found one"}
	case joins || hasJoined(record):
		joining := NewJoining(NewJoiner(JoinerConfig{
			Name: n.Name, Address: n.Advertise, Region: n.Region, Members: n.Members, Record: record, Rand: chance,
		}), write, n.Logger)
		joining.Ask, n.admission = n.AskToJoin, joining
		return nil
	}
	founding, err := n.prepareFounding(record, chance, write)
	n.admission = founding
	return err
}

func (n *Node) prepareFounding(record *kvdv1.StoreRecord, chance *mathrand.Rand, write func(*kvdv1.StoreRecord) error) (*Founding, error) {
	nodes := n.Initial
	if len(nodes) == 0 {
		nodes = []FoundNode{{Name: n.Name, Address: n.Advertise}}
	}
	// A founding that cannot be made is refused now, not when all others are there.
	probe := map[string]kv.StoreID{}
	for i, node := range nodes {
		probe[node.Name] = kv.StoreID(i + 1)
	}
	if _, err := n.makeFounding(nodes, probe); err != nil {
		return nil, err
	}
	founder, err := NewFounder(FounderConfig{
		Name: n.Name, Nodes: nodes, Token: n.Token, Record: record, Rand: chance,
		MakeFounding: func(stores map[string]kv.StoreID) *kvdv1.Founding {
			meta, err := n.makeFounding(nodes, stores)
			if err != nil {
				panic("a founding that was checked before cannot be made: " + err.Error())
			}
			return &kvdv1.Founding{Meta: meta}
		},
	})
	if err != nil {
		return nil, err
	}
	founding := NewFounding(founder, write, n.Logger)
	founding.Ask = n.Ask
	return founding, nil
}

func (n *Node) makeFounding(nodes []FoundNode, stores map[string]kv.StoreID) (*kvdv1.MetaState, error) {
	spec := raftmeta.FoundingSpec{Cluster: 1, Cuts: n.Cuts, Replicas: n.Replicas, TickMs: tickMs, ElectionTicks: electionTicks}
	for _, node := range nodes {
		region := ""
		if node.Name == n.Name {
			region = n.Region
		}
		spec.Nodes = append(spec.Nodes, raftmeta.FoundingNode{Name: node.Name, Address: node.Address, Region: region, Store: stores[node.Name]})
	}
	return raftmeta.Founding(spec)
}

// Found answers a step of the founding.
func (n *Node) Found(ctx context.Context, r *kvdv1.FoundRequest) (*kvdv1.FoundResponse, error) {
	return n.admission.Answer(ctx, r)
}

// Start founds the cluster, or waits until it is founded or lets this node in, and starts to serve.
func (n *Node) Start(ctx context.Context) error {
	n.starting.Lock()
	defer n.starting.Unlock()
	record, err := n.admission.Run(ctx)
	if err != nil {
		return err
	}
	n.record = proto.CloneOf(record)
	if err := n.openStores(); err != nil {
		return err
	}
	switch n.record.Phase {
	case kvdv1.StoreRecord_FOUNDED:
		if err := Found(n.record.Founding.Meta, kv.NodeID(n.record.NodeId), n.log, n.state); err != nil {
			return err
		}
		n.tellFounded()
	case kvdv1.StoreRecord_JOINED:
		n.Logger.Info("this node has joined a cluster", "cluster", kv.ClusterID(n.record.ClusterId), "node", n.record.NodeId)
	}
	if n.record.Meta, err = n.newestMeta(); err != nil {
		return err
	}
	n.record.Phase = kvdv1.StoreRecord_READY
	n.record.Life++
	if err := storage.WriteStore(n.DataDir, n.record); err != nil {
		return err
	}
	n.admission.Replace(n.record)
	n.self = Self{Cluster: kv.ClusterID(n.record.ClusterId), Node: kv.NodeID(n.record.NodeId), Life: kv.Life(n.record.Life)}
	return n.run()
}

// tellFounded says what was founded: who meant to join instead should not find out later.
func (n *Node) tellFounded() {
	cluster, nodes := kv.ClusterID(n.record.ClusterId), len(n.record.Founding.Meta.Nodes)
	if nodes == 1 {
		n.Logger.Info("a new cluster was founded, of this node alone; others join it with --join", "cluster", cluster, "address", n.Advertise)
		return
	}
	n.Logger.Info("a new cluster was founded", "cluster", cluster, "nodes", nodes)
}

// run opens the replicas and starts the loops.
func (n *Node) run() (err error) {
	meta := n.record.Meta
	if removedIn(meta, n.self.Node) {
		return ErrRemoved
	}
	if err := (probe{}).starts(n.self.Node, n.log, n.state); err != nil {
		return err
	}
	n.core, err = NewCore(CoreConfig{
		Cluster: n.self.Cluster, Node: n.self.Node, Life: n.self.Life, Tick: time.Duration(meta.TickMs) * time.Millisecond,
		ElectionTicks: int(meta.ElectionTicks), Log: n.log, State: n.state, Guard: n.guard, Host: n, Logger: n.Logger, Meta: meta,
	}, Now{Boot: bootTime(), Wall: wallTime()})
	if err != nil {
		return fmt.Errorf("open the replicas of %s: its data is damaged, or from a newer version of kvd; set the data directory aside and add the node anew: %w", n.DataDir, err)
	}
	n.ViewsChanged(n.core.Views())
	n.reader = Reader{Node: n.self.Node, Guard: n.guard, State: n.state, Wall: wallTime}
	var loopCtx context.Context
	n.ctx, n.cancel = context.WithCancel(context.Background())
	loopCtx, n.loopEnd = context.WithCancel(context.Background())
	n.network = n.Config.Network(n, n.self)
	// From here on calls find the node: everything that they use is there.
	n.takeMeta(meta)
	if err := n.lookAtDisk(); err != nil {
		return err
	}
	n.loops.Go(func() { n.writeLogs(loopCtx) })
	n.loops.Go(func() { n.loop(loopCtx) })
	n.background(n.watchDisk)
	n.background(n.watchTurns)
	n.background(n.followMeta)
	n.background(n.keepMeta)
	n.serving.Store(true)
	if n.stopping.Load() { // It was told to while it started, perhaps that it was removed.
		n.serving.Store(false)
	}
	n.background(n.announce)
	return nil
}

// newestMeta is the newest metadata that the node knows: its own meta replica's, that which it has recorded, or the
// founding's.
func (n *Node) newestMeta() (*kvdv1.MetaState, error) {
	newest := n.record.Founding.GetMeta()
	if n.record.Meta.GetVersion() > newest.GetVersion() {
		newest = n.record.Meta
	}
	records, err := n.state.Shards()
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		if m := r.State.GetMeta(); r.Shard == kv.MetaShard && m.GetVersion() > newest.GetVersion() {
			newest = m
		}
	}
	return newest, nil
}

// fixedMemory is what a node needs of its memory before there is any cache: code, connections, what is on its way.
const fixedMemory = 64 << 20

// cacheBytes is the share of the memory that the cache of records has: a third of what is not needed by everything. It is memory
// that the collector looks at, and which with garbage of as much again stays below the limit that the daemon sets.
func cacheBytes(memory int64) int64 {
	return max((memory-fixedMemory)/3, cache.BytesMin)
}

// blockBytes is the share of the memory that Pebble has for memtables and blocks: it takes the memtables, which are at most a quarter
// of the memory, and as a rule an eighth, out of its cache of blocks. With an eighth there would be none left for blocks, as there is
// while flushes are behind, and each miss read filter and index from the file; those fit into a sixteenth. What malloc keeps of it is
// half as much again.
func blockBytes(memory int64) int64 { return max(memory*3/16, 8<<20) }

// memtableBytes is the size of a memtable of either store.
func memtableBytes(memory int64) int64 { return min(max(memory/32, 1<<20), 64<<20) }

// openStores divides the memory: a third for the cache of records, three sixteenths for Pebble's memtables and blocks, and the rest for
// the heads of records, queues and the collector.
func (n *Node) openStores() error {
	n.blocks = pebble.NewCache(blockBytes(n.MemoryBytes))
	options := func(dir string) storage.Options {
		return storage.Options{
			Dir: filepath.Join(n.DataDir, dir), MustExist: n.record.Phase == kvdv1.StoreRecord_READY,
			Cache: n.blocks, MemtableBytes: uint64(memtableBytes(n.MemoryBytes)), HeadBytes: int(n.MemoryBytes / 32),
			Logger: n.Logger, Fatal: n.fatal,
		}
	}
	var err error
	if n.log, err = storage.OpenLog(options("log")); err != nil {
		return err
	}
	if n.state, err = storage.OpenState(options("state")); err != nil {
		return err
	}
	n.guard, err = cache.Open(cacheBytes(n.MemoryBytes))
	return err
}

// publishMeta publishes metadata if it is newer.
func (n *Node) publishMeta(m *kvdv1.MetaState) {
	old := n.meta.Load()
	if old != nil && old.shards.Version() >= m.GetVersion() {
		return
	}
	index := raftmeta.NewMap
	if old != nil {
		index = old.shards.Next
	}
	shards, err := index(m)
	if err != nil {
		n.fatal(err)
		return
	}
	next := &published{shards: shards, newer: make(chan struct{}), setting: raftmeta.SettingsOf(m)}
	if !n.meta.CompareAndSwap(old, next) {
		n.publishMeta(m)
		return
	}
	if old != nil {
		close(old.newer)
	}
}

// Meta gives the newest metadata, and a channel that is closed when there is newer.
func (n *Node) Meta() (*kvdv1.MetaState, <-chan struct{}) {
	p := n.meta.Load()
	if p == nil {
		return nil, nil
	}
	return p.shards.State(), p.newer
}

// Address gives the address of a node.
func (n *Node) Address(id kv.NodeID) (string, bool) {
	p := n.meta.Load()
	if p == nil {
		return "", false
	}
	node, ok := p.shards.Node(id)
	return node.Address, ok
}

// ID is the node's; 0 before Start.
func (n *Node) ID() kv.NodeID { return n.self.Node }

// background starts work that ends with the node.
func (n *Node) background(f func(ctx context.Context)) {
	n.work.Go(func() { f(n.ctx) })
}

func (n *Node) fatal(err error) {
	n.once.Do(func() { n.Config.Fatal(err) })
}

// handOverMax bounds how long a node that is going down waits for others to take its leaderships.
const handOverMax = 2 * time.Second

// PrepareStop makes the node not ready, and gives others a moment to take its leaderships.
func (n *Node) PrepareStop() {
	n.stopping.Store(true)
	if !n.serving.Load() || len(n.meta.Load().shards.Nodes()) == 1 {
		return
	}
	for began := time.Now(); time.Since(began) < handOverMax && n.leads() > 0; {
		n.inbox.add(func(in *Input) { in.HandOver = true })
		time.Sleep(50 * time.Millisecond)
	}
}

// Stop ends everything and closes what is open. Without now it gives the leaderships away first. It waits for Start,
// whose context the caller has ended if it has not returned.
func (n *Node) Stop(now bool) error {
	if !now {
		n.PrepareStop()
	}
	n.stopping.Store(true)
	n.starting.Lock()
	defer n.starting.Unlock()
	n.serving.Store(false)
	if n.network != nil {
		n.network.Close()
	}
	if n.cancel != nil {
		n.cancel()
		n.loopEnd()
	}
	n.loops.Wait()
	n.work.Wait()
	return n.closeStores()
}

func (n *Node) closeStores() error {
	var errs []error
	if n.guard != nil {
		n.guard.Close()
	}
	if n.state != nil {
		errs = append(errs, n.state.Close())
	}
	if n.log != nil {
		errs = append(errs, n.log.Close())
	}
	if n.blocks != nil {
		n.blocks.Unref()
	}
	return errors.Join(append(errs, n.lock.Close())...)
}

func (n *Node) leads() int {
	count := 0
	for _, v := range n.locals.Load().shards() {
		if v.state.Load().leader {
			count++
		}
	}
	return count
}

// randomJitter draws from [0, d).
func randomJitter(d time.Duration) time.Duration {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return time.Duration(binary.BigEndian.Uint64(b[:]) % uint64(d))
}
