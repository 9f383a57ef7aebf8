package raftmeta

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/kv"
)

// The names of the settings.
const (
	AutoMerge         = "auto-merge"
	AutoSplit         = "auto-split"
	Balance           = "balance"
	ChecksumInterval  = "checksum-interval"
	DeadAfter         = "dead-after"
	DiskStallHandover = "disk-stall-handover"
	DiskStallExit     = "disk-stall-exit"
	DiskReserve       = "disk-reserve"
	LeaderBalance     = "leader-balance"
	LogKeep           = "log-keep"
	MergeAge          = "merge-age"
	MergeBudget       = "merge-budget"
	MergeLoad         = "merge-load"
	MergeSize         = "merge-size"
	MetaVoters        = "meta-voters"
	MoveBudget        = "move-budget"
	Replicas          = "replicas"
	SleepAfter        = "sleep-after"
	SnapshotRate      = "snapshot-rate"
	SplitAge          = "split-age"
	SplitBytesLoad    = "split-bytes-load"
	SplitLoad         = "split-load"
	SplitSize         = "split-size"
)

// replicasDefault is the setting of a cluster that was founded without another wish.
const replicasDefault = 3

// Definition describes a setting.
type Definition struct {
	Name    string
	Default string
	// Bound is what a value must be, as people read it.
	Bound string
	Doc   string
	// check parses a value: a time.Duration, an int64 or a bool.
	check func(value string) (any, error)
}

var errBound = fmt.Errorf("out of bounds")

func durations(low, high time.Duration) (string, func(string) (any, error)) {
	return fmt.Sprintf("a time from %s to %s", short(low), short(high)), func(value string) (any, error) {
		d, err := time.ParseDuration(value)
		if err == nil && (d < low || d > high) {
			err = errBound
		}
		return d, err
	}
}

// short is a time without the parts that are 0: 1h, and not 1h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// durationsOrNone also takes 0, which switches something off.
func durationsOrNone(low, high time.Duration) (string, func(string) (any, error)) {
	bound, check := durations(low, high)
	return "0, or " + bound, func(value string) (any, error) {
		if d, err := time.ParseDuration(value); err == nil && d == 0 {
			return d, nil
		}
		return check(value)
	}
}

// voters are the odd numbers up to ReplicasMax.
func voters() (string, func(string) (any, error)) {
	_, check := numbers(1, ReplicasMax)
	return "1, 3 or 5", func(value string) (any, error) {
		n, err := check(value)
		if err == nil && n.(int64)%2 == 0 {
			err = errBound
		}
		return n, err
	}
}

func numbers(low, high int64) (string, func(string) (any, error)) {
	return fmt.Sprintf("a number from %d to %d", low, high), func(value string) (any, error) {
		n, err := strconv.ParseInt(value, 10, 64)
		if err == nil && (n < low || n > high) {
			err = errBound
		}
		return n, err
	}
}

func booleans() (string, func(string) (any, error)) {
	return "true or false", func(value string) (any, error) {
		if value != "true" && value != "false" {
			return nil, errBound
		}
		return value == "true", nil
	}
}

func define(name, standard, doc string, bound string, check func(string) (any, error)) Definition {
	return Definition{Name: name, Default: standard, Bound: bound, Doc: doc, check: check}
}

// Definitions are all settings, by name.
var Definitions = definitions()

func definitions() []Definition {
	var list []Definition
	add := func(name, standard, doc string) func(bound string, check func(string) (any, error)) {
		return func(bound string, check func(string) (any, error)) {
			list = append(list, define(name, standard, doc, bound, check))
		}
	}
	add(AutoMerge, "true", "whether small, cold neighbours are merged")(booleans())
	add(AutoSplit, "true", "whether large and busy shards are split")(booleans())
	add(Balance, "true", "whether replicas are moved to even out the nodes")(booleans())
	add(ChecksumInterval, "30m", "how often the replicas of a shard compare a checksum of their data")(durations(time.Second, time.Hour))
	add(DeadAfter, "5m", "a node that was not heard of for longer is down: its replicas are made again elsewhere")(durations(5*time.Second, 168*time.Hour))
	add(DiskReserve, "1073741824", "bytes that must stay free on the file system of a data directory; below, the node refuses writes")(numbers(0, 1<<50))
	add(DiskStallExit, "30s", "a node whose log write takes longer stops")(durations(time.Second, time.Hour))
	add(DiskStallHandover, "2s", "a node whose log write takes longer hands its leaderships over")(durations(100*time.Millisecond, time.Hour))
	add(LeaderBalance, "true", "whether leaderships are handed over to even out the load of the nodes")(booleans())
	add(LogKeep, strconv.Itoa(kv.LogKeepEntries), "entries of its log that a shard keeps for a follower that is behind; one that is further behind gets a snapshot")(numbers(8, 1<<20))
	add(MergeAge, "5m", "how long two neighbours must have been as they are before they are merged")(durations(time.Second, 24*time.Hour))
	add(MergeBudget, "1", "percent of all keys that merges may move in a round of the plan")(numbers(0, 100))
	add(MergeLoad, "0", "operations a second below which two neighbours together are cold; 0 is an eighth of split-load, and half of it is the most that counts")(numbers(0, 1<<30))
	add(MergeSize, "0", "bytes of keys and values below which two neighbours together are small; 0 is an eighth of split-size, and half of it is the most that counts")(numbers(0, 1<<40))
	add(MetaVoters, "5", "voters of the meta group, if there are as many nodes")(voters())
	add(MoveBudget, "9", "percent of all keys that moves may move in a round of the plan")(numbers(0, 100))
	add(Replicas, strconv.Itoa(replicasDefault), "voters of a shard, if there are as many nodes")(voters())
	add(SleepAfter, "10s", "a shard without requests for longer sleeps; 0: none does")(durationsOrNone(time.Second, 24*time.Hour))
	add(SnapshotRate, "67108864", "bytes a second that a node sends of snapshots")(numbers(64<<10, 1<<40))
	add(SplitAge, "2s", "how long a shard must have been as it is before it is split for its load")(durations(time.Second, time.Hour))
	add(SplitBytesLoad, "33554432", "bytes a second, read and written, above which a shard is split")(numbers(1<<10, 1<<40))
	add(SplitLoad, "5000", "operations a second above which a shard of a node that leads more than its part is split, if they are a quarter of what a node has in the mean; from two fifths of that on it is split whatever they are")(numbers(1, 1<<30))
	add(SplitSize, strconv.Itoa(kv.SplitBytes), "bytes of keys and values above which a shard is split")(numbers(1<<10, 1<<40))
	return list
}

// Definition finds a setting by its name.
func definition(name string) (Definition, error) {
	i := slices.IndexFunc(Definitions, func(d Definition) bool { return d.Name == name })
	if i < 0 {
		return Definition{}, &kv.InvalidError{Field: "setting", Bound: fmt.Sprintf("one of the settings' names, is %q", name)}
	}
	return Definitions[i], nil
}

// CheckSetting refuses an unknown name or a value out of its bound. An empty value is the default.
func CheckSetting(name, value string) error {
	d, err := definition(name)
	if err != nil || value == "" {
		return err
	}
	if _, err := d.check(value); err != nil {
		return &kv.InvalidError{Field: name, Bound: fmt.Sprintf("%s, is %q", d.Bound, value)}
	}
	return nil
}

// setSetting sets a setting; an empty value is the default again.
func setSetting(m *kvdv1.MetaState, v *kvdv1.SettingValue) (out outcome, refused string) {
	if err := CheckSetting(v.GetName(), v.GetValue()); err != nil {
		return out, err.Error()
	}
	next := successor(m)
	next.Settings = slices.DeleteFunc(slices.Clone(m.Settings), func(s *kvdv1.SettingValue) bool { return s.GetName() == v.Name })
	text := v.Name + " is its default again"
	if v.Value != "" {
		next.Settings = append(next.Settings, v)
		text = fmt.Sprintf("%s is %s", v.Name, v.Value)
	}
	return outcome{next: next, events: []*kvdv1.Event{{Kind: "setting", State: Happened, Text: text}}}, ""
}

// Settings are the values of all settings: what was set, else the default. They are immutable.
type Settings struct{ values map[string]any }

// SettingsOf resolves the settings of the metadata. What this version does not know is left out, and a value that it
// finds out of bounds is the default.
func SettingsOf(m *kvdv1.MetaState) *Settings {
	s := &Settings{values: map[string]any{}}
	for _, d := range Definitions {
		s.values[d.Name], _ = d.check(d.Default)
	}
	for _, v := range m.GetSettings() {
		if d, err := definition(v.GetName()); err == nil {
			if value, err := d.check(v.GetValue()); err == nil {
				s.values[d.Name] = value
			}
		}
	}
	return s
}

// Value writes the value of a setting as it is set.
func (s *Settings) Value(name string) string {
	if d, ok := s.values[name].(time.Duration); ok {
		return short(d)
	}
	return fmt.Sprint(s.values[name])
}

// Duration is the value of a setting that is a time.
func (s *Settings) Duration(name string) time.Duration { return s.values[name].(time.Duration) }

// Int is the value of a setting that is a number.
func (s *Settings) Int(name string) int64 { return s.values[name].(int64) }

// Bool is the value of a setting that is true or false.
func (s *Settings) Bool(name string) bool { return s.values[name].(bool) }

// MergeSize is what two neighbours may hold together, in bytes, to be merged: never more than half of what is split, or a
// shard would be split and merged in turns.
func (s *Settings) MergeSize() int64 { return s.below(MergeSize, SplitSize) }

// MergeLoad is the same for operations a second.
func (s *Settings) MergeLoad() int64 { return s.below(MergeLoad, SplitLoad) }

func (s *Settings) below(merge, split string) int64 {
	if n := s.Int(merge); n > 0 {
		return min(n, s.Int(split)/2)
	}
	return s.Int(split) / 8
}
