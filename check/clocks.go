package check

import "encoding/json"

// ClocksName is the F of the event that tells by how much clocks may differ.
const ClocksName = "clocks"

// ClocksTold is the value of its end.
type ClocksTold struct {
	// Skew is by how much the nodes' clocks may differ from the history's, in nanoseconds.
	Skew int64 `json:"skew"`
	// AheadLeast and AheadMost are by how much they were found to be ahead of it, in nanoseconds.
	AheadLeast int64 `json:"ahead_least"`
	AheadMost  int64 `json:"ahead_most"`
}

// Away is by how much the clocks differ at least, in nanoseconds.
func (c *ClocksTold) Away() int64 { return max(0, c.AheadLeast, -c.AheadMost) }

// SkewOf is by how much clocks may differ, in nanoseconds, as the history tells; 0 if it does not.
func SkewOf(calls []Call) int64 {
	var skew int64
	for i := range calls {
		var told ClocksTold
		if c := &calls[i]; c.Invoke.F == ClocksName && c.Type() == OK && json.Unmarshal(c.Done.Value, &told) == nil {
			skew = max(skew, told.Skew)
		}
	}
	return skew
}
