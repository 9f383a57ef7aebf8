package kv

import "time"

// What clients may send. The contract names these; they stay.
const (
	KeyBytesMax      = 4 << 10
	ValueBytesMax    = 1 << 20
	TxnBytesMax      = 3 << 20 // A Txn, and a message of a Pipeline.
	AnswerBytesMax   = 3 << 20 // Any answer, so that the 4 MiB default of every gRPC client does.
	ScanChunkBytes   = 1 << 20 // A chunk of a Scan ends at or before this, with at least one key.
	MessageBytesMax  = 16 << 20
	TxnOpsMax        = 1024
	BatchGetKeysMax  = 4096
	DeleteChunkMax   = 1024     // Keys that one OpDeleteRange removes.
	PipelineInFlight = 1024     // Operations that a Pipeline stream has in flight before flow control.
	MessagePartsMax  = 64 << 10 // Elements of lists and nested messages of one message to a node; between nodes more.
	TTLMax           = 100 * 365 * 24 * time.Hour
)

// How long things may take.
const (
	// RequestTimeout bounds a request that came without a deadline.
	RequestTimeout = 10 * time.Second
	// ExpiryLateMax is by how much a key may be seen after its time, by the clock of the node that is asked.
	ExpiryLateMax = time.Second
	// RetryAfter is the hint of a refusal.
	RetryAfter = 50 * time.Millisecond
)

// What a node queues.
const (
	// EntryBytesMax bounds one Raft entry: the largest command and its frame stay below it.
	EntryBytesMax = 4 << 20
	// EntryCommandsMax bounds the commands of one entry.
	EntryCommandsMax = 1024
	// ProposalsMax and ProposalBytesMax bound what a node has accepted and not answered yet.
	ProposalsMax     = 64 << 10
	ProposalBytesMax = 64 << 20
	// ProposalLatencyMax is what an answer may take before a node lets in fewer, down to ProposalsAlways.
	ProposalLatencyMax = 100 * time.Millisecond
	ProposalsAlways    = 1024
	// CallsMax bounds the calls of clients that a node has under way, unless its memory is small, and CallBytes is the memory
	// that one is counted as. No write is let in while the event loop is busy for longer than LoopLagMax with what came before:
	// a node must hear its neighbours several times in an election timeout.
	CallsMax   = 64 << 10
	CallBytes  = 128 << 10
	LoopLagMax = 100 * time.Millisecond
	// ShardProposalBytesMax bounds the same of one shard, so that a shard without a majority does not fill the node's.
	ShardProposalBytesMax = 16 << 20
	// ReadsWaitingMax bounds the reads of one shard that wait for a ReadIndex.
	ReadsWaitingMax = 16 << 10
	// ScansMax bounds the Scan streams of a node; a further one is refused. The chunks of all of them together are about
	// ScansBytesMax: each of many scans gets small ones, whether its client reads them or not.
	ScansMax      = 1024
	ScansBytesMax = 8 * ScanChunkBytes
	// InboxBytesMax bounds the Raft messages that wait for a loop; past it they are dropped.
	InboxBytesMax = 64 << 20
	// LoopCallsMax bounds the requests to describe the replicas that wait for a loop.
	LoopCallsMax = 256
	// OutboxBytesMax bounds the messages that wait for one neighbour; past it they are dropped.
	OutboxBytesMax = 32 << 20
	// UncommittedBytesMax bounds a leader's uncommitted log tail.
	UncommittedBytesMax = 32 << 20
	// InflightMessagesMax and InflightBytesMax bound the appends on their way to one follower.
	InflightMessagesMax = 64
	InflightBytesMax    = 2 << 20
	// AppendBytesMax is where one append message ends.
	AppendBytesMax = 256 << 10
	// ApplyBytesMax bounds what Raft hands one group to be applied.
	ApplyBytesMax = 1 << 20
	// GatherBytesMax is how much a replica that does not lead lets come together before it applies it.
	GatherBytesMax = 256 << 10
	// FollowBytesMax bounds what a turn applies of the groups that the node does not lead, but for one entry: a node
	// that catches up must not keep those waiting that it leads.
	FollowBytesMax = 512 << 10
	// LogTailBytesMax bounds the decoded entries that one group keeps in memory past their application.
	LogTailBytesMax = 1 << 20
	// LogKeepEntries and LogKeepBytes are what a group keeps of its log for a follower that is behind; past
	// them the follower gets a snapshot.
	LogKeepEntries = 20_000
	LogKeepBytes   = 16 << 20
	// LogSurplusBytesMax is how much of the logs of its awake shards a node keeps that nobody will want any more, beside up to 256 KiB
	// a shard, which are not counted: what is deleted while it is still in Pebble's memtable is never written to a table.
	LogSurplusBytesMax = 2 << 20
	// SplitBytes is, unless a setting says otherwise, how many bytes of keys and values a shard is split above.
	SplitBytes = 256 << 20
	// SnapshotPinBytesMax bounds what a sender keeps of its log above a snapshot's index until the receiver lacks no more of it than
	// LogWantedBytesMax (D4): with a log that is larger than a shard is by default, another snapshot costs less.
	SnapshotPinBytesMax = SplitBytes
	// LogWantedBytesMax bounds what is kept of a log for a follower that is heard and behind, and for a child without a leader.
	LogWantedBytesMax = 64 << 20
	// SnapshotChunkBytes is the size of a snapshot's chunk; the window of its stream bounds the chunks on their way.
	SnapshotChunkBytes = 256 << 10
	// SnapshotsIncomingMax and SnapshotsOutgoingMax bound the snapshots that a node receives and sends at the same
	// time (D4).
	SnapshotsIncomingMax = 1
	SnapshotsOutgoingMax = 1
	// ForwardsMax bounds the requests of other nodes that a node works on, and those that it passes on to each other
	// node; past it they are refused. It passes on fewer, down to ForwardsAlways, when they take longer than
	// ForwardLatencyMax, which is also what they wait for where they are carried out.
	ForwardsMax       = 8 << 10
	ForwardsAlways    = 256
	ForwardLatencyMax = 2 * ProposalLatencyMax
	// ForwardBytesMax bounds the size of the writes that a node has passed on to one other and has no answer to. What
	// it works on for all others together is bounded by ProposalBytesMax.
	ForwardBytesMax = 16 << 20
	// NodeMessagePartsMax is MessagePartsMax between nodes.
	NodeMessagePartsMax = 1 << 20
	// ClientInFlightMax and ClientInFlightBytesMax bound the operations of a client's pipelines that have no answer yet;
	// further ones wait.
	ClientInFlightMax      = 4096
	ClientInFlightBytesMax = 64 << 20
	// ReportShardsMax bounds the shards of one report to the leader of the meta group.
	ReportShardsMax = 512
	// OrdersMax bounds the orders of one round of the plan, and those that wait at a node.
	OrdersMax = 256
	// GoalsMax bounds the goals that the meta group has at a time; a further one is refused.
	GoalsMax = 256
	// RulesMax bounds the placement rules, and NodesMax the nodes of a cluster.
	RulesMax = 256
	NodesMax = 1024
	// ShardsMax bounds the shards of a cluster.
	ShardsMax = 64 << 10
	// AbsorbedMax bounds the absorbed shards that a shard remembers, and AbsorbedMapMax those that the map does.
	AbsorbedMax    = 8
	AbsorbedMapMax = 4096
	// ReplicaIDMax is the highest id of a replica: raft keeps the last two numbers that there are for its own threads.
	ReplicaIDMax = 1<<63 - 1
	// ParkedMax bounds the votes that wait on a node for the split that their shard is born in (S5).
	ParkedMax = 256
	// EventsMax bounds the events that a node remembers.
	EventsMax = 4096
	// SurveysMax bounds the walks through data for splits that wait on a node, each with a view; further splits wait.
	SurveysMax = 16
	// SamplesMax bounds the keys that a replica remembers of its latest requests, one of each SampleEvery.
	SamplesMax  = 512
	SampleEvery = 32
	// EventsDefault and HotDefault are how many are listed unless told otherwise; HotMax bounds the shards of one list, and
	// HotKeysMax the keys of each.
	EventsDefault = 100
	HotDefault    = 10
	HotMax        = 100
	HotKeysMax    = 5
	// BackupsMax bounds the shards that a node streams to backups at the same time; a further one is refused.
	BackupsMax = 4
	// FoundingNodesMax bounds the list that a static cluster is founded from.
	FoundingNodesMax = 64
)

// The relations that must hold between bounds; a negative array length here does not compile.
var (
	_ [EntryBytesMax - TxnBytesMax - KeyBytesMax]struct{}
	_ [AnswerBytesMax - ValueBytesMax - KeyBytesMax]struct{}
	_ [AnswerBytesMax - ScanChunkBytes - ValueBytesMax - KeyBytesMax]struct{}
	_ [MessageBytesMax - AppendBytesMax - EntryBytesMax]struct{}
	_ [InflightBytesMax - AppendBytesMax]struct{}
	_ [OutboxBytesMax - MessageBytesMax]struct{}
	_ [ApplyBytesMax - 2*GatherBytesMax]struct{}
	_ [UncommittedBytesMax - EntryBytesMax]struct{}
	_ [ProposalBytesMax - ShardProposalBytesMax]struct{}
	_ [MessagePartsMax - BatchGetKeysMax]struct{}
	_ [MessagePartsMax - 4*TxnOpsMax]struct{}
	_ [ProposalBytesMax - ForwardBytesMax]struct{}
	_ [ForwardBytesMax - EntryBytesMax]struct{}
	_ [ClientInFlightBytesMax - MessageBytesMax]struct{}
	_ [SnapshotPinBytesMax - LogWantedBytesMax]struct{}
	_ [LogWantedBytesMax - LogKeepBytes]struct{}
)
