// Package turns has clusters of kvd that are measured in turns, on one machine, and each runs only in its own.
//
//	Found ──> Up ── Even ── Settle ── load ── Down ──> Up ── …
//
// What a cluster takes that nobody asks anything is a part of what is measured, and must not be taken from the others. Between
// its turns it keeps its data; so each turn begins with a start, as after a stop of all nodes at once.
package turns

import (
	"context"
	"errors"
	"fmt"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/bench/local"
	"github.com/kvdstore/kvd/bench/measure"
	"github.com/kvdstore/kvd/bench/report"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/internal/wait"
)

const (
	// askMax bounds a question to a cluster, and lookEvery is the time between two looks whether its shards sleep.
	askMax, lookEvery = 30 * time.Second, time.Second
)

// still are settings with which nothing is split, merged or moved, and no leadership goes elsewhere.
var still = map[string]string{"auto-split": "false", "auto-merge": "false", "balance": "false", "leader-balance": "false"}

// Cluster is one of them.
type Cluster struct {
	cluster *local.Cluster
	admin   *client.Client
}

// Found starts a cluster for the first time, has it leave its shards as they are, and stops it.
func Found(ctx context.Context, config local.Config) (c *Cluster, err error) {
	c = &Cluster{}
	c.cluster, err = local.Start(ctx, config)
	if err == nil {
		err = c.open()
	}
	if err == nil {
		err = c.keepStill(ctx)
	}
	return c, errors.Join(err, c.Down())
}

// open makes a client for what an operator does.
func (c *Cluster) open() (err error) {
	c.admin, err = client.New(client.Config{Endpoints: c.cluster.Addresses()})
	return err
}

func (c *Cluster) keepStill(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	for name, value := range still {
		if _, err := c.admin.SetSetting(ctx, name, value); err != nil {
			return fmt.Errorf("setting %s: %w", name, err)
		}
	}
	return nil
}

// Down stops the cluster, if it runs.
func (c *Cluster) Down() error {
	var errs []error
	if c.admin != nil {
		errs = append(errs, c.admin.Close())
		c.admin = nil
	}
	if c.cluster != nil {
		errs = append(errs, c.cluster.Down())
	}
	return errors.Join(errs...)
}

// Endpoints are where clients reach it, and Metrics the URLs of its nodes' metrics.
func (c *Cluster) Endpoints() []string { return c.cluster.Addresses() }
func (c *Cluster) Metrics() []string   { return c.cluster.Metrics() }

// ReadFiles reads the nodes' data once.
func (c *Cluster) ReadFiles(ctx context.Context) error { return c.cluster.ReadFiles(ctx) }

// PIDs are the numbers of its processes.
func (c *Cluster) PIDs() (list []int) {
	for _, p := range c.cluster.Processes() {
		list = append(list, p.PID())
	}
	return list
}

// Up starts the cluster with what it has.
func (c *Cluster) Up(ctx context.Context) (*report.Standing, error) {
	began := time.Now()
	if err := c.cluster.Up(ctx); err != nil {
		return nil, err
	}
	return &report.Standing{Start: time.Since(began).Seconds()}, c.open()
}

// Settle waits until the shards sleep, for at most a time, and looks for another at what the cluster takes that nobody asks
// anything.
func (c *Cluster) Settle(ctx context.Context, most, idle time.Duration, s *report.Standing) error {
	if err := c.awaitSleep(ctx, most, s); err != nil {
		return err
	}
	return c.look(ctx, idle, s)
}

// awaitSleep waits until all shards sleep, for at most a time.
func (c *Cluster) awaitSleep(ctx context.Context, most time.Duration, s *report.Standing) error {
	for end := time.Now().Add(most); ; {
		list, err := c.list(ctx)
		if err != nil {
			return err
		}
		s.Shards, s.Asleep = len(list), 0
		for _, shard := range list {
			if shard.GetAsleep() {
				s.Asleep++
			}
		}
		if s.Asleep == s.Shards || time.Now().After(end) {
			return nil
		}
		if err := wait.For(ctx, lookEvery); err != nil {
			return err
		}
	}
}

// list gives all shards.
func (c *Cluster) list(ctx context.Context) ([]*kvdv1.ShardInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	r, err := c.admin.Shards(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the shards: %w", err)
	}
	return r.GetShards(), nil
}

// look looks for a time at what the processes take.
func (c *Cluster) look(ctx context.Context, idle time.Duration, s *report.Standing) error {
	w, err := measure.NewWatch(ctx, c.PIDs(), nil)
	if err != nil {
		return err
	}
	if err := wait.For(ctx, idle); err != nil {
		return err
	}
	list, _, err := w.End(ctx)
	for _, p := range list {
		s.Cores, s.Resident = s.Cores+p.Cores, s.Resident+p.ResidentMax
	}
	return errors.Join(err, c.stores(ctx, s))
}

// Cached gives the bytes that the caches hold.
func (c *Cluster) Cached(ctx context.Context) (uint64, error) {
	s := &report.Standing{}
	err := c.stores(ctx, s)
	return s.Cached, err
}

// stores adds up what the stores and the caches hold.
func (c *Cluster) stores(ctx context.Context, s *report.Standing) error {
	s.Disk, s.Cached = 0, 0
	for _, url := range c.cluster.Metrics() {
		m, err := measure.Scrape(ctx, url)
		if err != nil {
			return err
		}
		state, err := m.Value("kvd_state_disk_bytes")
		log, more := m.Value("kvd_log_disk_bytes")
		cached, most := m.Value("kvd_cache_bytes")
		if err := errors.Join(err, more, most); err != nil {
			return err
		}
		s.Disk, s.Cached = s.Disk+uint64(state)+uint64(log), s.Cached+uint64(cached)
	}
	return nil
}
