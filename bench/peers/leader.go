package peers

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kvdstore/kvd/bench/local"
	"github.com/kvdstore/kvd/client"
)

// askMax bounds a question to a store.
const askMax = 10 * time.Second

// Leader gives the process of a server that leads: of etcd the leader, of kvd the node that leads the most shards.
func (s *Store) Leader(ctx context.Context) (*local.Process, error) {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	i, err := -1, error(nil)
	switch s.Kind {
	case "kvd":
		i, err = s.kvdLeader(ctx)
	case "etcd":
		i, err = s.etcdLeader(ctx)
	}
	if err == nil && i < 0 {
		err = errors.New("no server says that it leads")
	}
	if err != nil {
		return nil, fmt.Errorf("the leader of %s: %w", s.Name, err)
	}
	return s.Processes()[i], nil
}

// kvdLeader gives the place of a node among the endpoints.
func (s *Store) kvdLeader(ctx context.Context) (at int, err error) {
	c, err := client.New(client.Config{Endpoints: s.Endpoints})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	m, err := c.Map(ctx)
	if err != nil {
		return 0, err
	}
	places := map[uint64]int{} // By node.
	for _, n := range m.GetNodes() {
		for i, e := range s.Endpoints {
			if n.GetAddress() == e {
				places[n.GetNode()] = i
			}
		}
	}
	shards, err := c.Shards(ctx)
	if err != nil {
		return 0, err
	}
	leads := make([]int, len(s.Endpoints))
	at = -1
	for _, x := range shards.GetShards() {
		i, known := places[x.GetDescriptor_().GetLeader()]
		if !known {
			continue
		}
		if leads[i]++; at < 0 || leads[i] > leads[at] {
			at = i
		}
	}
	return at, nil
}

func (s *Store) etcdLeader(ctx context.Context) (at int, err error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: s.Endpoints, DialTimeout: askMax})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	for i, e := range s.Endpoints {
		r, err := c.Status(ctx, e)
		if err != nil {
			return 0, err
		}
		if r.Leader == r.Header.MemberId {
			return i, nil
		}
	}
	return -1, nil
}
