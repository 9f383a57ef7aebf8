package node

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"google.golang.org/protobuf/proto"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
	"github.com/kvdstore/kvd/raftmeta"
)

// The founding of a static cluster (B1), and of a single node, which is a list of one (B2).
//
//	           all others answered             all stores hold it           another store holds it
//	EMPTY ───────────────────────▶ PREPARED ──────────────────▶ FOUNDED ──────────────────────▶ takes part
//	 ▲ a random store id            ▲ the record │ a store was      (the lowest only; the
//	                                └────────────┘ emptied: again    others at once)
//
// Every node asks every other what it holds. The lowest name alone makes records. A record names each node with
// the id of its store, has a cluster id of its own and a sequence, and a store goes from one record to another
// only with a higher sequence. What makes a crash at any moment harmless:
//
//   - The lowest syncs FOUNDED only when every store that the record names has synced the record, and from then on
//     never makes another. A second record can be founded only if some store goes from the first to the second
//     before it is FOUNDED, and then it takes no FOUNDED of the first that was pushed to it.
//   - The lowest itself takes part only when another store is FOUNDED too: if its disk were lost before, the
//     others would not know that the cluster had begun, and might found it again.
//   - An answer counts only if the record of the asking node has not changed since the question: so what answered
//     was alive, with that store, when the asking node held what it holds now. Requests may arrive at any time, also
//     from a process or a disk that is gone, and are judged by that: PREPARE by its sequence, FOUNDED by being
//     exactly what the store holds.
//   - Whoever holds PREPARED and gets the answer FOUNDED from a living store, for a record that names its own
//     store, joins that, whatever it holds: it synced that record once, and what replaced it cannot be founded
//     any more, because the store that answered will never take it.
//   - A store that the founded record does not name is refused: its node was emptied after it was counted.

// ErrFoundRefused: this node cannot be part of the cluster that was founded under its list.
var ErrFoundRefused = errors.New("the cluster was founded without this store")

// FoundNode is one entry of --initial-cluster.
type FoundNode struct {
	Name, Address string
}

func (n FoundNode) String() string { return n.Name + " (" + n.Address + ")" }

// FounderConfig is what a Founder needs.
type FounderConfig struct {
	// Name of this node; it is in Nodes.
	Name string
	// Nodes in the order of --initial-cluster, 1 to kv.FoundingNodesMax. It may be empty when the record says
	// more than EMPTY, and counts for nothing when the record says FOUNDED.
	Nodes []FoundNode
	Token string
	// Record is what the store holds, synced; without a store id on the first start.
	Record *kvdv1.StoreRecord
	// MakeFounding makes what the cluster begins with, from the store ids by name. The Founder fills in the
	// cluster id, the hash of the list and the sequence.
	MakeFounding func(stores map[string]kv.StoreID) *kvdv1.Founding
	// Rand gives the store id and the cluster id; it must differ from process to process.
	Rand *rand.Rand
}

// Founder takes one node through the founding. It does no I/O. After every call the driver looks at Unsynced, and
// if there is a record, syncs it and calls Synced, before anything else; then it sends what Sends gives.
type Founder struct {
	name     string
	nodes    []FoundNode // In the order given.
	lowest   string
	listHash string
	make     func(map[string]kv.StoreID) *kvdv1.Founding
	rand     *rand.Rand

	record  *kvdv1.StoreRecord // As synced. Never changed in place.
	pending *kvdv1.StoreRecord // Waits for the driver's sync.
	version uint64             // Rises with every new record; answers to questions of an earlier one do not count.
	peers   []*foundPeer       // The others, by name.
	refused error
}

// foundPeer is what is known of another node.
type foundPeer struct {
	FoundNode
	asked  bool                 // A request is under way.
	due    bool                 // It is to be asked.
	answer *kvdv1.FoundResponse // To a question of this version, else nil.
	reason string               // Why there is no answer that counts.
}

// FoundSend is a request for the driver to send. It is handed back with the answer or the failure.
type FoundSend struct {
	To      FoundNode
	Request *kvdv1.FoundRequest
	version uint64
}

// NewFounder checks the configuration against the record and gives a Founder that goes on from the record.
func NewFounder(cfg FounderConfig) (*Founder, error) {
	record := proto.CloneOf(cfg.Record)
	if record == nil {
		record = &kvdv1.StoreRecord{}
	}
	f := &Founder{
		name: cfg.Name, nodes: slices.Clone(cfg.Nodes), make: cfg.MakeFounding, rand: cfg.Rand, record: record,
	}
	f.listHash = FoundListHash(f.nodes, cfg.Token)
	if founding := record.Founding; founding != nil {
		if foundBegun(record.Phase) || len(f.nodes) == 0 {
			f.nodes, f.listHash = foundNodes(founding), founding.ListHash
		}
		if name, ok := foundName(founding, record.StoreId); ok && foundBegun(record.Phase) {
			f.name = name // Whatever the flag says now, or the host is called.
		}
		if founding.ListHash != f.listHash {
			return nil, &kv.InvalidError{Field: "initial-cluster", Bound: fmt.Sprintf(
				"this store was prepared for the nodes %v and their token: start it with these, or empty the "+
					"directory of every node to found another cluster", foundNodes(founding))}
		}
	}
	if err := foundCheckNodes(f.name, f.nodes); err != nil {
		return nil, err
	}
	f.lowest = slices.MinFunc(f.nodes, func(a, b FoundNode) int { return cmp.Compare(a.Name, b.Name) }).Name
	for _, n := range f.nodes {
		if n.Name != f.name {
			f.peers = append(f.peers, &foundPeer{FoundNode: n, due: true, reason: "has not answered"})
		}
	}
	slices.SortFunc(f.peers, func(a, b *foundPeer) int { return cmp.Compare(a.Name, b.Name) })
	f.advance()
	return f, nil
}

// FoundListHash identifies a list of nodes, in whatever order, together with the token.
func FoundListHash(nodes []FoundNode, token string) string {
	sorted := slices.SortedFunc(slices.Values(nodes), func(a, b FoundNode) int { return cmp.Compare(a.Name, b.Name) })
	h := sha256.New()
	write := func(s string) {
		h.Write(binary.AppendUvarint(nil, uint64(len(s))))
		h.Write([]byte(s))
	}
	for _, n := range sorted {
		write(n.Name)
		write(n.Address)
	}
	write("")
	write(token)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func foundCheckNodes(name string, nodes []FoundNode) error {
	invalid := func(format string, args ...any) error {
		return &kv.InvalidError{Field: "initial-cluster", Bound: fmt.Sprintf(format, args...)}
	}
	if len(nodes) == 0 || len(nodes) > kv.FoundingNodesMax {
		return invalid("1 to %d nodes, has %d", kv.FoundingNodesMax, len(nodes))
	}
	seen := map[string]bool{}
	for _, n := range nodes {
		switch {
		case n.Name == "" || n.Address == "":
			return invalid("every entry is NAME=HOST:PORT")
		case seen[n.Name]:
			return invalid("names differ, %s is there twice", n.Name)
		case seen["="+n.Address]:
			return invalid("addresses differ, %s is there twice", n.Address)
		}
		seen[n.Name], seen["="+n.Address] = true, true
	}
	if !seen[name] {
		return invalid("names this node, %q, which is not among %v", name, nodes)
	}
	return nil
}

// Tick lets every other node be asked again.
func (f *Founder) Tick() {
	for _, p := range f.peers {
		p.due = true
	}
	f.advance()
}

// Unsynced gives the record that is to be synced before anything else is done; nil when there is none.
func (f *Founder) Unsynced() *kvdv1.StoreRecord { return f.pending }

// Synced says that the record that Unsynced gave is durable.
func (f *Founder) Synced() {
	f.record, f.pending = f.pending, nil
	f.version++
	for _, p := range f.peers {
		p.answer, p.due = nil, true
	}
	f.advance()
}

// Sends takes the requests that are to be sent. At most one a node is under way: every one must be answered with
// Response or Failed.
func (f *Founder) Sends() []FoundSend {
	if f.pending != nil || f.refused != nil || f.record.StoreId == 0 || f.done() {
		return nil
	}
	var sends []FoundSend
	for _, p := range f.peers {
		if p.due && !p.asked {
			p.due, p.asked = false, true
			sends = append(sends, FoundSend{To: p.FoundNode, Request: f.request(p), version: f.version})
		}
	}
	return sends
}

// request is what a node is asked or told, by what it is known to hold.
func (f *Founder) request(p *foundPeer) *kvdv1.FoundRequest {
	req := &kvdv1.FoundRequest{ListHash: f.listHash, FromName: f.name, StoreId: f.record.StoreId}
	if f.name != f.lowest || p.answer != nil && foundSame(p.answer.Founding, f.record.Founding) &&
		p.answer.Phase >= f.record.Phase {
		return req
	}
	switch f.record.Phase {
	case kvdv1.StoreRecord_PREPARED:
		req.Step, req.Founding = kvdv1.FoundRequest_PREPARE, f.record.Founding
	case kvdv1.StoreRecord_FOUNDED:
		req.Step, req.Founding = kvdv1.FoundRequest_FOUNDED, f.record.Founding
	}
	return req
}

// Failed says that a request was not answered.
func (f *Founder) Failed(s FoundSend, err error) {
	p := f.peer(s.To.Name)
	p.asked, p.answer, p.reason = false, nil, err.Error()
}

// Response takes the answer to a request.
func (f *Founder) Response(s FoundSend, resp *kvdv1.FoundResponse) {
	p := f.peer(s.To.Name)
	p.asked = false
	if s.version != f.version || f.pending != nil {
		p.due = true
		return
	}
	p.answer = nil
	switch {
	case resp.Name != p.Name:
		p.reason = fmt.Sprintf("is the node %q", resp.Name)
	case resp.ListHash != f.listHash:
		p.reason = "was started with another --initial-cluster or --cluster-token"
		if resp.Refusal != "" {
			p.reason = resp.Refusal
		}
	case resp.StoreId == 0:
		p.reason = "has no store yet"
	case f.holder(resp.StoreId, p) != "":
		p.reason = fmt.Sprintf("holds the same store %v as %s: a data directory was copied; empty that of one of them",
			kv.StoreID(resp.StoreId), f.holder(resp.StoreId, p))
	default:
		p.answer, p.reason = resp, resp.Refusal
		f.learn(resp)
	}
	f.advance()
}

// holder is the name of a node other than p that holds a store, or empty.
func (f *Founder) holder(store uint64, p *foundPeer) string {
	if store == f.record.StoreId {
		return f.name
	}
	for _, other := range f.peers {
		if other != p && other.answer != nil && other.answer.StoreId == store {
			return other.Name
		}
	}
	return ""
}

// learn takes from an answer what this node may take.
func (f *Founder) learn(resp *kvdv1.FoundResponse) {
	switch {
	case foundBegun(f.record.Phase):
		if foundBegun(resp.Phase) && !foundSame(resp.Founding, f.record.Founding) {
			f.refused = fmt.Errorf("%w: the store of %s belongs to cluster %v, this one to %v", ErrFoundRefused,
				resp.Name, foundCluster(resp.Founding), foundCluster(f.record.Founding))
		}
	case foundBegun(resp.Phase):
		f.join(resp)
	case resp.Phase == kvdv1.StoreRecord_PREPARED:
		f.take(resp.Founding)
	}
}

// join follows a living store that is FOUNDED.
func (f *Founder) join(resp *kvdv1.FoundResponse) {
	prepared := f.record.Phase == kvdv1.StoreRecord_PREPARED
	switch {
	case prepared && foundSame(resp.Founding, f.record.Founding):
		f.begin(f.record.Founding)
	case prepared && f.mayBegin(resp.Founding):
		f.begin(resp.Founding)
	default:
		f.refused = fmt.Errorf("%w: cluster %v already runs, and this store (%v) was not there when it was founded; "+
			"a node whose data directory was lost cannot come back under its old name: let it join as a new node",
			ErrFoundRefused, foundCluster(resp.Founding), kv.StoreID(f.record.StoreId))
	}
}

// take takes a newer record, from whoever holds it.
func (f *Founder) take(founding *kvdv1.Founding) {
	if f.pending != nil || foundBegun(f.record.Phase) || f.name == f.lowest || !f.mayBegin(founding) ||
		founding.Sequence <= f.record.Founding.GetSequence() {
		return
	}
	f.prepare(founding)
}

// Request takes what another node says. The driver syncs what Unsynced gives, and then answers with Answer.
func (f *Founder) Request(req *kvdv1.FoundRequest) {
	p := f.peer(req.FromName)
	if p == nil || req.ListHash != f.listHash || f.record.StoreId == 0 || f.pending != nil || f.refused != nil {
		return
	}
	if p.answer == nil {
		p.due = true // It is there, so ask it now.
	}
	if req.FromName != f.lowest {
		return
	}
	switch req.Step {
	case kvdv1.FoundRequest_PREPARE:
		f.take(req.Founding)
	case kvdv1.FoundRequest_FOUNDED:
		if f.record.Phase == kvdv1.StoreRecord_PREPARED && foundSame(req.Founding, f.record.Founding) {
			f.begin(f.record.Founding)
		}
	}
}

// Answer tells another node what this store holds, synced. It is nil before there is a store id.
func (f *Founder) Answer(req *kvdv1.FoundRequest) *kvdv1.FoundResponse {
	if f.record.StoreId == 0 {
		return nil
	}
	resp := &kvdv1.FoundResponse{
		Name: f.name, StoreId: f.record.StoreId, Phase: f.record.Phase, ListHash: f.listHash,
	}
	if req.ListHash != f.listHash {
		resp.Refusal = "was started with another --initial-cluster or --cluster-token"
		return resp
	}
	resp.Founding = f.record.Founding
	if store, ok := foundStore(f.record.Founding, req.FromName); foundBegun(f.record.Phase) && (!ok || store != req.StoreId) {
		resp.Refusal = fmt.Sprintf("is in cluster %v, which was founded with another store of %s",
			kv.ClusterID(f.record.ClusterId), req.FromName)
	}
	return resp
}

// advance makes the next record if one is due: the store id, and then what only the lowest may decide.
func (f *Founder) advance() {
	switch {
	case f.pending != nil || f.refused != nil:
	case f.record.StoreId == 0:
		f.save(func(r *kvdv1.StoreRecord) { r.StoreId = f.random() })
	case f.name == f.lowest && !foundBegun(f.record.Phase):
		f.lead()
	}
}

// lead decides for all: nothing until all have answered; a record when there is none that names every store, or
// when some store holds a later one; FOUNDED when all hold it.
func (f *Founder) lead() {
	if slices.ContainsFunc(f.peers, func(p *foundPeer) bool { return p.answer == nil }) {
		return
	}
	founding, all := f.record.Founding, true
	fits := f.record.Phase == kvdv1.StoreRecord_PREPARED
	for _, p := range f.peers {
		store, _ := foundStore(founding, p.Name)
		held := p.answer.Founding
		all = all && foundSame(held, founding)
		fits = fits && store == p.answer.StoreId && (foundSame(held, founding) || held.GetSequence() < founding.Sequence)
	}
	switch {
	case !fits:
		f.remake()
	case all:
		f.begin(founding)
	}
}

// remake makes a record of the stores as they are now, above every record that any of them holds.
func (f *Founder) remake() {
	stores := map[string]kv.StoreID{f.name: kv.StoreID(f.record.StoreId)}
	sequence := f.record.Founding.GetSequence()
	for _, p := range f.peers {
		stores[p.Name] = kv.StoreID(p.answer.StoreId)
		sequence = max(sequence, p.answer.Founding.GetSequence())
	}
	founding := f.make(stores)
	for name, store := range stores {
		if made, _ := foundStore(founding, name); made != uint64(store) {
			panic(fmt.Sprintf("the founding record names store %x for %s instead of %v", made, name, store))
		}
	}
	founding.Meta.ClusterId, founding.ListHash, founding.Sequence = f.random(), f.listHash, sequence+1
	f.prepare(founding)
}

// prepare goes to PREPARED with a record.
func (f *Founder) prepare(founding *kvdv1.Founding) {
	f.save(func(r *kvdv1.StoreRecord) {
		r.Phase, r.Founding = kvdv1.StoreRecord_PREPARED, founding
	})
}

// begin goes to FOUNDED with a record that names this store.
func (f *Founder) begin(founding *kvdv1.Founding) {
	if !f.named(founding) {
		panic(fmt.Sprintf("store %x begins with a record that does not name it", f.record.StoreId))
	}
	i := slices.IndexFunc(founding.Meta.Nodes, func(n *kvdv1.MetaNode) bool { return n.Node.GetName() == f.name })
	f.save(func(r *kvdv1.StoreRecord) {
		r.Phase, r.Founding = kvdv1.StoreRecord_FOUNDED, founding
		r.ClusterId, r.NodeId = founding.Meta.ClusterId, founding.Meta.Nodes[i].Node.Node
	})
}

func (f *Founder) save(change func(*kvdv1.StoreRecord)) {
	f.pending = proto.CloneOf(f.record)
	change(f.pending)
}

// random gives an id; 0 is none.
func (f *Founder) random() uint64 {
	for {
		if id := f.rand.Uint64(); id != 0 {
			return id
		}
	}
}

// Done gives the synced record when this node may take part, else nil.
func (f *Founder) Done() *kvdv1.StoreRecord {
	if !f.done() {
		return nil
	}
	return f.record
}

func (f *Founder) done() bool {
	switch {
	case f.pending != nil || f.refused != nil || !foundBegun(f.record.Phase):
		return false
	case f.record.Phase == kvdv1.StoreRecord_READY || f.name != f.lowest || len(f.peers) == 0:
		return true
	}
	// The lowest waits for one other; unless all others have lost their stores since, then nobody is left to know.
	gone := 0
	for _, p := range f.peers {
		store, _ := foundStore(f.record.Founding, p.Name)
		switch {
		case p.answer == nil:
		case p.answer.StoreId != store:
			gone++
		case foundBegun(p.answer.Phase):
			return true
		}
	}
	return gone == len(f.peers)
}

// Err tells why this node can never take part; nil while it may.
func (f *Founder) Err() error { return f.refused }

// Missing tells what the founding waits for, a phrase a node; empty when this node waits for nobody.
func (f *Founder) Missing() []string {
	var missing []string
	if f.done() || f.refused != nil {
		return nil
	}
	for _, p := range f.peers {
		if p.answer == nil || p.reason != "" {
			missing = append(missing, p.String()+": "+cmp.Or(p.reason, "has not answered"))
		}
	}
	return missing
}

// Record is what the store holds, synced. It is shared and not to be changed.
func (f *Founder) Record() *kvdv1.StoreRecord { return f.record }

// Replace takes over a record that the node itself has synced after Done: the next start of the process, or READY.
func (f *Founder) Replace(record *kvdv1.StoreRecord) {
	founding := f.record.Founding
	f.record = proto.CloneOf(record)
	f.record.Founding = cmp.Or(f.record.Founding, founding)
}

func (f *Founder) peer(name string) *foundPeer {
	i := slices.IndexFunc(f.peers, func(p *foundPeer) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	return f.peers[i]
}

// named reports whether a record of this list names this node with this store.
func (f *Founder) named(founding *kvdv1.Founding) bool {
	store, ok := foundStore(founding, f.name)
	return ok && store == f.record.StoreId && founding.ListHash == f.listHash && foundCluster(founding) != 0
}

// mayBegin reports whether a record that another made is one to begin with.
func (f *Founder) mayBegin(founding *kvdv1.Founding) bool {
	return f.named(founding) && raftmeta.Check(founding.GetMeta()) == nil
}

// foundBegun reports whether a store in this phase was counted among the founded ones.
func foundBegun(phase kvdv1.StoreRecord_Phase) bool {
	return phase == kvdv1.StoreRecord_FOUNDED || phase == kvdv1.StoreRecord_READY
}

// foundSame reports whether two are the same record: every one has a cluster id of its own.
func foundSame(a, b *kvdv1.Founding) bool {
	return foundCluster(a) != 0 && foundCluster(a) == foundCluster(b)
}

func foundCluster(founding *kvdv1.Founding) kv.ClusterID {
	return kv.ClusterID(founding.GetMeta().GetClusterId())
}

// foundStore is the store that a record names for a node.
func foundStore(founding *kvdv1.Founding, name string) (store uint64, ok bool) {
	for _, n := range founding.GetMeta().GetNodes() {
		if n.GetNode().GetName() == name {
			return n.StoreId, true
		}
	}
	return 0, false
}

// foundName is the name of the node whose store it is.
func foundName(founding *kvdv1.Founding, store uint64) (name string, ok bool) {
	for _, n := range founding.GetMeta().GetNodes() {
		if n.StoreId == store && store != 0 {
			return n.GetNode().GetName(), true
		}
	}
	return "", false
}

// foundNodes is the list that a record was made from, in the order of the node ids.
func foundNodes(founding *kvdv1.Founding) []FoundNode {
	var nodes []FoundNode
	for _, n := range founding.GetMeta().GetNodes() {
		nodes = append(nodes, FoundNode{Name: n.GetNode().GetName(), Address: n.GetNode().GetAddress()})
	}
	return nodes
}
