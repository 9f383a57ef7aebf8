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
	ChecksumInterval  = "checksum-interval"
	DiskStallHandover = "disk-stall-handover"
	DiskStallExit     = "disk-stall-exit"
	DiskReserve       = "disk-reserve"
	LeaderBalance     = "leader-balance"
	LogKeep           = "log-keep"
)

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
	add(ChecksumInterval, "30m", "how often the replicas of a shard compare a checksum of their data")(durations(time.Second, time.Hour))
	add(DiskReserve, "1073741824", "bytes that must stay free on the file system of a data directory; below, the node refuses writes")(numbers(0, 1<<50))
	add(DiskStallExit, "30s", "a node whose log write takes longer stops")(durations(time.Second, time.Hour))
	add(DiskStallHandover, "2s", "a node whose log write takes longer hands its leaderships over")(durations(100*time.Millisecond, time.Hour))
	add(LeaderBalance, "true", "whether a shard's leadership goes back to the replica that the map names first")(booleans())
	add(LogKeep, strconv.Itoa(kv.LogKeepEntries), "entries of its log that a shard keeps for a follower that is behind; one that is further behind gets a snapshot")(numbers(8, 1<<20))
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
