package client

// The answers of a pipeline are decoded one by one, into memory that the next one uses again: what the caller gets of them is
// copied out, or was allocated for it alone, as values are.

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
)

// answersKept bounds the memory that is kept from one message for the next, in bytes.
const answersKept = 1 << 20

// The numbers of the fields of PipelineResponse and PipelineResult that are looked at here.
const (
	resultsField         = 1
	resultIDField        = 1
	resultErrorField     = 2
	resultGetField       = 3
	resultPutField       = 4
	resultDeleteField    = 5
	resultIncrementField = 6
	resultTxnField       = 7
)

var errGarbledAnswer = errors.New("a message of answers cannot be decoded")

// answers is a PipelineResponse as it came.
type answers struct {
	data []byte
	// whole is what another codec than the client's decodes it into.
	whole *kvdv1.PipelineResponse
}

// Reset makes it empty.
func (m *answers) Reset() {
	if cap(m.data) > answersKept {
		m.data = nil
	}
	m.data, m.whole = m.data[:0], nil
}

// UnmarshalVT copies the message.
func (m *answers) UnmarshalVT(b []byte) error {
	m.data = append(m.data, b...)
	return nil
}

// SizeVT is that of the message, in bytes.
func (m *answers) SizeVT() int { return len(m.data) }

// MarshalToSizedBufferVT copies it.
func (m *answers) MarshalToSizedBufferVT(b []byte) (int, error) { return copy(b, m.data), nil }

// ProtoReflect is how any other codec begins.
func (m *answers) ProtoReflect() protoreflect.Message {
	if m.whole == nil {
		m.whole = &kvdv1.PipelineResponse{}
	}
	return m.whole.ProtoReflect()
}

// split appends the results of the message to a list, each as it came.
func (m *answers) split(list []answer) ([]answer, error) {
	if m.whole != nil {
		data, err := m.whole.MarshalVT()
		if err != nil {
			return list, err
		}
		m.data = data
	}
	for b := m.data; len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return list, errGarbledAnswer
		}
		size := protowire.ConsumeFieldValue(number, kind, b[n:])
		if size < 0 {
			return list, errGarbledAnswer
		}
		if number == resultsField && kind == protowire.BytesType {
			data, _ := protowire.ConsumeBytes(b[n:])
			a, err := peek(data)
			if err != nil {
				return list, err
			}
			list = append(list, a)
		}
		b = b[n+size:]
	}
	return list, nil
}

// answer is one result.
type answer struct {
	id    uint64
	field protowire.Number // Of what it is; 0 for nothing that is known here.
	data  []byte
	o     *operation // Whose it is.
}

// peek tells of a result whose it is, and of what kind.
func peek(data []byte) (answer, error) {
	a := answer{data: data}
	for b := data; len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return a, errGarbledAnswer
		}
		size := protowire.ConsumeFieldValue(number, kind, b[n:])
		switch {
		case size < 0:
			return a, errGarbledAnswer
		case number == resultIDField && kind == protowire.VarintType:
			a.id, _ = protowire.ConsumeVarint(b[n:])
		case number > resultIDField && number <= resultTxnField:
			a.field = number
		}
		b = b[n+size:]
	}
	return a, nil
}

// fits tells whether it is an answer to its operation.
func (a *answer) fits() bool { return a.field == a.o.field || a.field == resultErrorField }

// answerMemory is what answers are decoded into.
type answerMemory struct {
	result kvdv1.PipelineResult
	header kvdv1.ResponseHeader
	epoch  kvdv1.Epoch

	get       kvdv1.PipelineResult_Get
	found     kvdv1.GetResponse
	put       kvdv1.PipelineResult_Put
	written   kvdv1.PutResponse
	delete    kvdv1.PipelineResult_Delete
	deleted   kvdv1.DeleteResponse
	increment kvdv1.PipelineResult_Increment
	added     kvdv1.IncrementResponse
}

// decode decodes an answer. It is good until the next one.
func (m *answerMemory) decode(a *answer) (*kvdv1.PipelineResult, error) {
	m.result.Reset()
	m.header.Reset()
	m.epoch.Reset()
	m.header.Epoch = &m.epoch
	switch a.field {
	case resultGetField:
		m.found.Reset()
		m.found.Header, m.get.Get, m.result.Result = &m.header, &m.found, &m.get
	case resultPutField:
		m.written.Reset()
		m.written.Header, m.put.Put, m.result.Result = &m.header, &m.written, &m.put
	case resultDeleteField:
		m.deleted.Reset()
		m.deleted.Header, m.delete.Delete, m.result.Result = &m.header, &m.deleted, &m.delete
	case resultIncrementField:
		m.added.Reset()
		m.added.Header, m.increment.Increment, m.result.Result = &m.header, &m.added, &m.increment
	}
	return &m.result, m.result.UnmarshalVT(a.data)
}
