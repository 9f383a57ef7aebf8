package main

import (
	"slices"
	"strings"

	"github.com/kvdstore/kvd/bench/load"
	"github.com/kvdstore/kvd/bench/peers"
)

// killCase is the one in which a leader is killed under load.
const killCase = "kill-leader"

// comparison is a case: one load, and whom it is for.
type comparison struct {
	name     string
	workload string
	value    int // 0 for the workload's own.
	clients  int
	// pipelined uses the pipelines of those that have one: the others do the same one by one.
	pipelined bool
	// depth of those with a pipeline. Redis has its own.
	depth, redisDepth, redisClients int
	// only are the kinds of stores; empty for all that can.
	only []string
}

var plain = []string{"kvd", "etcd", "redis", "memcached", "echo", "pebble"}

// comparisons are all there are.
var comparisons = []comparison{
	{name: "get-1", workload: "get", clients: 1},
	{name: "get-64", workload: "get", clients: 64},
	{name: "get-256", workload: "get", clients: 256},
	{name: "get-1000", workload: "get", clients: 1000},
	{name: "get-1k-256", workload: "get", value: 1024, clients: 256},
	{name: "put-1", workload: "put", clients: 1},
	{name: "put-64", workload: "put", clients: 64},
	{name: "put-256", workload: "put", clients: 256},
	{name: "put-1000", workload: "put", clients: 1000},
	{name: "put-1k-256", workload: "put", value: 1024, clients: 256},
	{name: "pipeline-get-256", workload: "get", clients: 256, pipelined: true, only: []string{"kvd", "etcd", "echo"}},
	{name: "pipeline-get-1000", workload: "get", clients: 1000, pipelined: true, only: []string{"kvd", "etcd", "echo"}},
	{name: "pipeline-put-256", workload: "put", clients: 256, pipelined: true, only: []string{"kvd", "etcd", "echo"}},
	{name: "pipeline-put-1000", workload: "put", clients: 1000, pipelined: true, only: []string{"kvd", "etcd", "echo"}},
	{name: "packed-get", workload: "get", clients: 64, pipelined: true, depth: 64, redisDepth: 16, redisClients: 50, only: []string{"kvd", "redis", "echo"}},
	{name: "packed-put", workload: "put", clients: 64, pipelined: true, depth: 64, redisDepth: 16, redisClients: 50, only: []string{"kvd", "redis", "echo", "pebble"}},
	{name: "a", workload: "a", clients: 64, only: plain},
	{name: "b", workload: "b", clients: 64, only: plain},
	{name: "c", workload: "c", clients: 64, only: plain},
	{name: "d", workload: "d", clients: 64, only: plain},
	{name: "e", workload: "e", clients: 64},
	{name: "f", workload: "f", clients: 64, only: plain},
	{name: "a-pipelined", workload: "a", clients: 16, pipelined: true, depth: 64, redisDepth: 16, redisClients: 50, only: []string{"kvd", "redis"}},
	{name: "b-pipelined", workload: "b", clients: 16, pipelined: true, depth: 64, redisDepth: 16, redisClients: 50, only: []string{"kvd", "redis"}},
	{name: "c-pipelined", workload: "c", clients: 16, pipelined: true, depth: 64, redisDepth: 16, redisClients: 50, only: []string{"kvd", "redis"}},
	{name: "d-pipelined", workload: "d", clients: 16, pipelined: true, depth: 64, redisDepth: 16, redisClients: 50, only: []string{"kvd", "redis"}},
	{name: "f-pipelined", workload: "f", clients: 16, pipelined: true, depth: 64, redisDepth: 16, redisClients: 50, only: []string{"kvd", "redis"}},
	{name: "geo", workload: "geo", clients: 64, only: []string{"kvd", "etcd", "redis"}},
	{name: killCase, workload: "put", clients: 64, only: []string{"kvd", "etcd"}},
}

// caseNames gives the names of all cases.
func caseNames() (list []string) {
	for _, c := range comparisons {
		list = append(list, c.name)
	}
	return list
}

// trial makes one for a store; false when the case is not for it.
func (c *comparison) trial(s *settings, store, kind string) (*trial, bool) {
	if len(c.only) > 0 && !slices.Contains(c.only, kind) {
		return nil, false
	}
	if c.name == killCase && !strings.HasSuffix(store, "-3") {
		return nil, false
	}
	t := &trial{clients: c.clients, depth: max(c.depth, 1), warm: s.warm, length: s.length}
	t.workload = load.Workload{Name: c.workload, Keys: s.keys, Value: c.value, ReadPercent: -1, Seed: s.seed}
	t.target.Kind = kind
	if t.target.Pipelined = c.pipelined && (kind == "kvd" || kind == "redis" || kind == "echo" || kind == "pebble"); !t.target.Pipelined {
		t.depth = 1
	}
	if kind == "redis" && t.target.Pipelined {
		t.depth, t.clients = max(c.redisDepth, 1), c.redisClients
	}
	t.target.Endpoints = []string{"127.0.0.1:1"} // Nobody has an address yet; what follows asks what the kind can do.
	return t, t.prepare() == nil
}

// cuts are the keys at which kvd's shards begin, so that each key space that is used has some.
func (s *settings) cuts() (list [][]byte, err error) {
	for _, name := range []string{"get", "a", "geo"} {
		w := load.Workload{Name: name, Keys: s.keys, ReadPercent: -1, Seed: s.seed}
		if err := w.Prepare(); err != nil {
			return nil, err
		}
		list = append(list, w.Cuts(s.shards)...)
	}
	return list, nil
}

// stores are the names of those that are compared: an older etcd only if it is asked for.
func (s *settings) stores() []string {
	usual := slices.DeleteFunc(peers.Names(), func(name string) bool { return strings.HasPrefix(name, "etcd36") })
	return s.chosen(peers.Names(), usual)
}

// chosen are those of some names that --only has, the usual ones if it has none of them.
func (s *settings) chosen(names, usual []string) (list []string) {
	for _, name := range names {
		if slices.Contains(s.only, name) {
			list = append(list, name)
		}
	}
	if len(list) == 0 {
		return usual
	}
	return list
}
