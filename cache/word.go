package cache

// Word is the state of a stripe: the high 48 bits are its version, the low 16 count the writers at work. At a
// million changes of one stripe a second the version takes nine years to come round.
type Word uint64

const (
	writersBits = 16
	// writersMax is stuck: a stripe that ever has so many writers at once is never lowered again, so it only
	// misses from then on. Counting further would spill into the version and hide writers at work.
	writersMax = 1<<writersBits - 1
)

// Writers is how many writers are at work on the stripe.
func (w Word) Writers() int { return int(w & writersMax) }

// Version is how many changes of the stripe have ended.
func (w Word) Version() uint64 { return uint64(w >> writersBits) }

// raised is the word with one more writer at work.
func (w Word) raised() Word {
	if w.Writers() == writersMax {
		return w
	}
	return w + 1
}

// lowered is the word after one writer has ended.
func (w Word) lowered() Word {
	if w.Writers() == writersMax {
		return w
	}
	return w + 1<<writersBits - 1
}
