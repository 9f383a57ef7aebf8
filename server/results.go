package server

import (
	"slices"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

const (
	// answerBytes is about where a message of results ends, and flushBytes where those of reads from memory are handed over
	// that came in one message.
	answerBytes = kv.AnswerBytesMax / 2
	flushBytes  = 64 << 10
	// unsentBytesMax bounds the results of a stream that wait to be sent: past it no operation is begun. What
	// had begun before comes on top.
	unsentBytesMax = 4 * kv.AnswerBytesMax
	// pooledBytesMax is the size to which the memory of a message is kept for the next one.
	pooledBytesMax = 256 << 10
)

// answers is a PipelineResponse, encoded: no result is kept as an object, and none that waits refers to a value.
type answers struct {
	b     []byte
	count int
}

var answersPool = sync.Pool{New: func() any { return &answers{} }}

func newAnswers() *answers { return answersPool.Get().(*answers) }

// free gives it back for another stream: one that is idle holds no memory for messages.
func (a *answers) free() {
	if cap(a.b) <= pooledBytesMax {
		a.Reset()
		answersPool.Put(a)
	}
}

// resultsField is the number of PipelineResponse.results.
const resultsField = 1

// add encodes a result.
func (a *answers) add(r *kvdv1.PipelineResult) {
	size := r.SizeVT()
	a.b = protowire.AppendTag(a.b, resultsField, protowire.BytesType)
	a.b = protowire.AppendVarint(a.b, uint64(size))
	before := len(a.b)
	a.b = slices.Grow(a.b, size)[:before+size]
	if _, err := r.MarshalToSizedBufferVT(a.b[before:]); err != nil {
		panic("server: a result cannot be encoded: " + err.Error())
	}
	a.count++
}

// Reset makes it empty; its memory stays.
func (a *answers) Reset() { a.b, a.count = a.b[:0], 0 }

// SizeVT is the size of the PipelineResponse.
func (a *answers) SizeVT() int { return len(a.b) }

// MarshalToSizedBufferVT copies it.
func (a *answers) MarshalToSizedBufferVT(b []byte) (int, error) { return copy(b, a.b), nil }

// UnmarshalVT takes what is encoded.
func (a *answers) UnmarshalVT(b []byte) error {
	a.b = append(a.b[:0], b...)
	return nil
}

// results are those of a stream on their way to its sender, and its operations by number. A pipeline's mu guards it.
type results struct {
	// waiting are the messages to be sent, the oldest first.
	waiting []*answers
	// unsent counts their bytes and those of the one that is being sent, inFlight the operations whose result was not sent,
	// and open those without one.
	unsent, inFlight, open int
	// idle says that the sender waits for wake, and short that the receiver waits for room.
	idle, short bool
	wake, room  chan struct{}
	// ended says that nothing more is received, and err why.
	ended bool
	err   error
}

func newResults() results {
	return results{wake: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// full reports that no operation may begin.
func (r *results) full() bool { return r.inFlight >= kv.PipelineInFlight || r.crowded() }

// crowded reports that too much waits to be sent.
func (r *results) crowded() bool { return r.unsent > unsentBytesMax }

// reserve counts operations that begin, or with less than none, that will not.
func (r *results) reserve(n int) {
	r.inFlight += n
	r.open += n
}

// last gives the message to which size bytes may be added.
func (r *results) last(size int) *answers {
	if n := len(r.waiting); n > 0 && len(r.waiting[n-1].b)+size <= answerBytes {
		return r.waiting[n-1]
	}
	a := newAnswers()
	r.waiting = append(r.waiting, a)
	return a
}

// add takes the result of an operation.
func (r *results) add(x *kvdv1.PipelineResult) {
	a := r.last(x.SizeVT())
	before := len(a.b)
	a.add(x)
	r.unsent += len(a.b) - before
	r.open--
	r.signal()
}

// take takes the results of several, with the memory that they are in.
func (r *results) take(a *answers) {
	r.unsent += len(a.b)
	r.open -= a.count
	if n := len(r.waiting); n > 0 && len(r.waiting[n-1].b)+len(a.b) <= answerBytes {
		last := r.waiting[n-1]
		last.b, last.count = append(last.b, a.b...), last.count+a.count
		a.free()
	} else {
		r.waiting = append(r.waiting, a)
	}
	r.signal()
}

// signal wakes the sender if it waits and there is something for it.
func (r *results) signal() {
	if r.idle && (len(r.waiting) > 0 || r.ended && r.open == 0) {
		r.idle = false
		r.wake <- struct{}{}
	}
}

// next gives the sender the next message. Without one it is over, with an error if the receiver had one, or the sender is to
// wait for wake.
func (r *results) next() (a *answers, over bool, err error) {
	if len(r.waiting) > 0 {
		a = r.waiting[0]
		if r.waiting = r.waiting[1:]; len(r.waiting) == 0 {
			r.waiting = nil
		}
		return a, false, nil
	}
	if r.ended && r.open == 0 {
		return nil, true, r.err
	}
	r.idle = true
	return nil, false, nil
}

// sent makes room.
func (r *results) sent(a *answers) {
	r.unsent -= len(a.b)
	r.inFlight -= a.count
	if r.short {
		r.short = false
		r.room <- struct{}{}
	}
}
