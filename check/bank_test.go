package check

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvdstore/kvd/kv"
)

// bankCall is a call of a bank at moments 10 times its index.
func bankCall(i int, f, asked string, kind EventType, told string) Call {
	at := int64(10 * i)
	return Call{
		Invoke: Event{Index: 2 * i, Process: i, Type: Invoked, F: f, Time: at, Value: []byte(asked)},
		Done:   &Event{Index: 2*i + 1, Process: i, Type: kind, F: f, Time: at + 5, Value: []byte(told)},
	}
}

func TestBankOf(t *testing.T) {
	b, err := BankOf([]Call{
		bankCall(0, BankWriteName, `{"keys":["a","b"],"expect":[0,0],"values":["5","5"]}`, OK, `{"revisions":[1,1]}`),
		bankCall(1, BankWriteName, `{"keys":["b","a"],"expect":[1,1],"values":["3","7"]}`, Info, `null`),
		bankCall(2, "nothing of a bank", `null`, OK, `null`),
		bankCall(3, BankReadName, `{"keys":["a","b","c"],"total":10,"final":true}`, OK, `{"values":["7","3",""],"revisions":[2,2,0]}`),
		bankCall(4, BankReadName, `{"keys":["a"]}`, Failed, `null`),
	})
	require.NoError(t, err)
	at := func(o Operation, i int, key string, outcome Outcome) Operation {
		o.Process, o.Call, o.Return, o.Key, o.Outcome = i, int64(10*i), int64(10*i+5), key, outcome
		return o
	}
	reads := []Operation{
		at(Operation{Kind: Get, Found: true, Observed: "7", Revision: 2}, 3, "a", Done),
		at(Operation{Kind: Get, Found: true, Observed: "3", Revision: 2}, 3, "b", Done), at(Operation{Kind: Get}, 3, "c", Done),
	}
	require.Equal(t, History{
		at(Operation{Kind: CAS, Value: "5", Succeeded: true, Revision: 1}, 0, "a", Done),
		at(Operation{Kind: CAS, Value: "5", Succeeded: true, Revision: 1}, 0, "b", Done),
		at(Operation{Kind: CAS, Value: "3", Expect: 1}, 1, "b", Unknown), at(Operation{Kind: CAS, Value: "7", Expect: 1}, 1, "a", Unknown),
		reads[0], reads[1], reads[2], at(Operation{Kind: Get}, 4, "a", NotDone),
	}, b.History)
	require.Equal(t, []BankRead{{10, reads}}, b.Reads)
	require.Equal(t, map[string]bool{"a": true, "b": true, "c": true}, b.Final)
	require.Equal(t, map[string]Final{"a": {Value: "7", Revision: 2}, "b": {Value: "3", Revision: 2}}, b.Ends)
	require.Equal(t, [][]Operation{reads}, b.Cuts())
	require.Empty(t, Sums(b.Reads))
	require.Empty(t, Linearizable(b.History, patience))

	for text, c := range map[string]Call{
		"expect, values":    bankCall(0, BankWriteName, `{"keys":["a"]}`, OK, `{"revisions":[1]}`),
		"revisions, values": bankCall(0, BankReadName, `{"keys":["a"]}`, OK, `{"revisions":[1]}`),
		"event 0":           bankCall(0, BankReadName, `{"keys":["a"]}`, OK, `[]`),
		"key: at least":     bankCall(0, BankReadName, `{"keys":[""]}`, Failed, `null`),
	} {
		_, err := BankOf([]Call{c})
		require.ErrorContains(t, err, text)
	}
}

func TestSums(t *testing.T) {
	gets := func(values ...string) []Operation {
		var all []Operation
		for i, v := range values {
			o := op(Get, v, 1, 2, kv.Revision(i+1))
			o.Key = string(rune('a' + i))
			all = append(all, o)
		}
		return all
	}
	for _, c := range []struct {
		name  string
		total int64
		gets  []Operation
		want  Rule
	}{
		{"the sum", 10, gets("7", "3"), ""},
		{"not opened", 10, gets("", ""), ""},
		{"less", 10, gets("7", "2"), WrongSum},
		{"more", 10, gets("7", "4"), WrongSum},
		{"half opened", 10, gets("5", ""), WrongSum},
		{"not of all", 0, gets("7", "2"), ""},
		{"below 0", 10, gets("11", "-1"), WrongBalance},
		{"no number", 10, gets("10", "x"), WrongBalance},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := Sums([]BankRead{{c.total, c.gets}})
			if c.want == "" {
				require.Empty(t, found)
				return
			}
			require.Len(t, found, 1)
			require.Equal(t, c.want, found[0].Rule)
		})
	}
}
