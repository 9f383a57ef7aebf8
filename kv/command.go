package kv

// Op is what a command does.
type Op uint8

const (
	// OpPut writes a value.
	OpPut Op = iota + 1
	// OpDelete removes a key.
	OpDelete
	// OpDeleteRange removes the first keys of a span.
	OpDeleteRange
	// OpIncrement adds to a decimal counter.
	OpIncrement
	// OpTxn compares, then does one of two lists of operations, atomically.
	OpTxn
	// OpExpire moves the shard's time and purges keys that fell due. Not a write: no revision.
	OpExpire
	// OpChecksum asks every replica for a checksum of its state at this index. Not a write: no revision.
	OpChecksum
	// OpMeta is a command of the meta group.
	OpMeta
	// OpShape changes the span or the standing of the shard, or prepares that: a split, a merge and their steps. Not a
	// write: no revision.
	OpShape
)

// Level is the consistency that a read asks for.
type Level uint8

const (
	// Linearizable sees every write that was acknowledged before the read began.
	Linearizable Level = iota
	// Session is read-your-writes and monotonic (reserved).
	Session
	// Bounded is at most so stale (reserved).
	Bounded
	// Eventual is what any replica holds, at once.
	Eventual
)

// ConditionKind says what a Condition asks of a key.
type ConditionKind uint8

const (
	// Always holds.
	Always ConditionKind = iota
	// IfAbsent holds when the key is not there.
	IfAbsent
	// IfRevision holds when the key is there at exactly this revision.
	IfRevision
	// IfPresent holds when the key is there (Txn only).
	IfPresent
	// IfValue holds when the key is there with exactly this value (Txn only).
	IfValue
)

// Condition is asked of a key when the command is applied.
type Condition struct {
	Kind     ConditionKind
	Revision Revision
	Value    []byte
}

// Record is what is stored under a key.
type Record struct {
	Value    []byte
	Revision Revision
	// ExpireAt is in Unix milliseconds of the shard's time; 0 means never.
	ExpireAt int64
}

// Head is a record without its value.
type Head struct {
	Revision Revision
	ExpireAt int64 // As of the record.
	Bytes    int   // The length of the value.
}

// Head is what of the record is known without its value.
func (r *Record) Head() Head { return Head{r.Revision, r.ExpireAt, len(r.Value)} }

// ExpiredAt reports whether the record is gone at a shard's time (Unix milliseconds).
func (r *Record) ExpiredAt(time int64) bool { return r.ExpireAt != 0 && r.ExpireAt <= time }

// Command is one thing to do, as it is proposed to a shard's group. One Raft entry carries many.
type Command struct {
	Op    Op
	Key   []byte
	End   []byte // OpDeleteRange: the end of the span that Key starts.
	Value []byte // OpPut; OpMeta: an encoded command of the meta group.
	Cond  Condition
	// TTL is in milliseconds; the expiry is computed at apply from max(shard time, stamp) + TTL (R4).
	TTL int64
	// ExpireAt is in Unix milliseconds. At most one of TTL and ExpireAt is set.
	ExpireAt int64
	Delta    int64 // OpIncrement.
	Limit    int   // OpDeleteRange: at most so many keys; the result says where to resume.
	Txn      *Txn
	Due      []Due  // OpExpire.
	ID       uint64 // OpChecksum: names the request.
}

// Size is about what the command takes in memory and in the log, in bytes.
func (c *Command) Size() int {
	n := 64 + len(c.Key) + len(c.End) + len(c.Value) + len(c.Cond.Value)
	for _, d := range c.Due {
		n += 16 + len(d.Key)
	}
	if c.Txn != nil {
		for _, x := range c.Txn.Compare {
			n += 32 + len(x.Key) + len(x.Cond.Value)
		}
		for _, ops := range [2][]TxnOp{c.Txn.Then, c.Txn.Else} {
			for _, o := range ops {
				n += 32 + len(o.Key) + len(o.Value)
			}
		}
	}
	return n
}

// Due is a key that was to expire at a time.
type Due struct {
	ExpireAt int64
	Key      []byte
}

// Txn is a list of comparisons, and what to do when all of them hold, or else. All keys lie in one shard.
type Txn struct {
	Compare    []Compare
	Then, Else []TxnOp
}

// Compare is one comparison of a Txn.
type Compare struct {
	Key  []byte
	Cond Condition
}

// TxnOpKind is what an operation of a Txn does.
type TxnOpKind uint8

const (
	// TxnGet reads a key as the transaction has left it so far.
	TxnGet TxnOpKind = iota + 1
	// TxnPut writes a value.
	TxnPut
	// TxnDelete removes a key.
	TxnDelete
)

// TxnOp is one operation of a Txn. Later operations see earlier ones.
type TxnOp struct {
	Kind     TxnOpKind
	Key      []byte
	Value    []byte
	TTL      int64 // Milliseconds.
	ExpireAt int64 // Unix milliseconds.
}

// Keys calls f for every key that the command names, until f returns false.
func (c *Command) Keys(f func(key []byte) bool) {
	switch c.Op {
	case OpPut, OpDelete, OpIncrement, OpDeleteRange:
		f(c.Key)
	case OpTxn:
		for _, x := range c.Txn.Compare {
			if !f(x.Key) {
				return
			}
		}
		for _, ops := range [2][]TxnOp{c.Txn.Then, c.Txn.Else} {
			for _, o := range ops {
				if !f(o.Key) {
					return
				}
			}
		}
	}
}

// Status is how a command ended at apply. It is the same on every replica; a refusal is a result, not an
// error, and a refused command has written nothing.
type Status uint8

const (
	// Done: the command was carried out.
	Done Status = iota + 1
	// ConditionFailed: the condition did not hold; Revision is the key's current one, 0 when it is absent.
	ConditionFailed
	// WrongShard: a key lies outside the shard's span (the shard was split since the proposal).
	WrongShard
	// NotANumber: the counter holds something that is no decimal 64-bit number, or the sum overflows.
	NotANumber
	// Refused: the command breaks a bound, or comes at the wrong time; Reason says which.
	Refused
	// Frozen: the shard is being merged into its left neighbour and serves nothing; another try finds it there.
	Frozen
)

// Result is what a command's application gives.
type Result struct {
	Status Status
	// Revision is the key's revision after a write, or its current one when a condition failed.
	Revision Revision
	// Found tells of a delete whether the key was there.
	Found bool
	// Counter is the new value of an increment.
	Counter int64
	// Count is how many keys an OpDeleteRange removed, and Resume where to go on; nil when it is at the end.
	Count  int
	Resume []byte
	// Succeeded tells of a Txn which list was done, and Ops what each operation gave.
	Succeeded bool
	Ops       []TxnOpResult
	// Reason explains Refused.
	Reason string
}

// TxnOpResult is what one operation of a Txn gave.
type TxnOpResult struct {
	// Found tells of a get or a delete whether the key was there.
	Found bool
	// Record is what a get read; of a put, only its Revision and ExpireAt are set.
	Record Record
}

// Header tells of an answer where it came from.
type Header struct {
	Shard ShardID
	Epoch Epoch
	// Revision of the shard that the answer may reflect: for a write its own, for a read mayBeVisible (R2).
	Revision Revision
	// Node that served it.
	Node NodeID
}
