// Package measure turns what callers saw and what processes took into figures: latencies as HDR histograms, a timeline by
// second, errors by kind, processor time, memory and bytes written.
//
// A latency is counted in the second in which it ended. Nothing is thrown away but what the caller of Recorder.Take does
// not keep.
package measure
