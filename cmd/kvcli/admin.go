package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

type shardJSON struct {
	Shard    uint64    `json:"shard"`
	Start    string    `json:"start"`
	End      string    `json:"end"`
	Leader   uint64    `json:"leader"`
	Replicas []uint64  `json:"replicas"`
	Epoch    epochJSON `json:"epoch"`
	Keys     uint64    `json:"keys"`
	Bytes    uint64    `json:"bytes"`
	Load     float64   `json:"load"`
	Reads    float64   `json:"reads"`
	Writes   float64   `json:"writes"`
	AgeMs    int64     `json:"age_ms"`
	Asleep   bool      `json:"asleep"`
}

type epochJSON struct {
	Version uint64 `json:"version"`
	Config  uint64 `json:"config"`
}

func shardOf(s *kvdv1.ShardInfo) shardJSON {
	d := s.GetDescriptor_()
	x := shardJSON{
		Shard: d.GetShard(), Start: kv.FormatKey(d.GetStart()), End: kv.FormatKey(d.GetEnd()), Leader: d.GetLeader(), Replicas: []uint64{},
		Epoch: epochJSON{d.GetEpoch().GetVersion(), d.GetEpoch().GetConfig()}, Keys: s.GetKeys(), Bytes: s.GetBytes(), Load: s.GetLoad(),
		Reads: s.GetReads(), Writes: s.GetWrites(), Asleep: s.GetAsleep(),
	}
	if s.GetSinceMs() > 0 {
		x.AgeMs = max(time.Now().UnixMilli()-s.GetSinceMs(), 0)
	}
	for _, r := range d.GetReplicas() {
		x.Replicas = append(x.Replicas, r.GetNode())
	}
	return x
}

// load is what the table has of the load.
func (s *shardJSON) load() string {
	if s.Asleep {
		return "asleep"
	}
	return fmt.Sprintf("%.0f/s", s.Load)
}

// age is for how long the shard has had its span; none of those that the cluster was founded with have one.
func (s *shardJSON) age() string {
	if s.AgeMs == 0 {
		return "-"
	}
	return (time.Duration(s.AgeMs) * time.Millisecond).Round(time.Second).String()
}

// age is the time since a moment in Unix milliseconds.
func age(ms int64) time.Duration {
	return max(time.Since(time.UnixMilli(ms)), 0).Round(time.Second)
}

func (c *cli) shardsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "shards", Short: "List the shards", Example: "  kvcli shards\n  kvcli shards -o json", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd, true, func(ctx context.Context, cl *client.Client) error {
				resp, err := cl.Shards(ctx)
				if err != nil {
					return err
				}
				tellSilent(resp.SilentNodes)
				list := make([]shardJSON, 0, len(resp.Shards))
				for _, x := range resp.Shards {
					list = append(list, shardOf(x))
				}
				if c.output == "json" {
					return c.json(cmd, list)
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				_, _ = fmt.Fprintln(w, "SHARD\tSTART\tEND\tLEADER\tREPLICAS\tEPOCH\tKEYS\tBYTES\tLOAD\tAGE")
				for _, x := range list {
					_, _ = fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%s\t%d.%d\t%d\t%d\t%s\t%s\n", x.Shard, orDash(x.Start), orDash(x.End), x.Leader,
						strings.Trim(fmt.Sprint(x.Replicas), "[]"), x.Epoch.Version, x.Epoch.Config, x.Keys, x.Bytes, x.load(), x.age())
				}
				return w.Flush()
			})
		},
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// statusJSON has every field, also what is 0. Cluster and store are written as everywhere else: as numbers they would be
// too large for most readers of JSON.
type statusJSON struct {
	Node        nodeJSON      `json:"node"`
	Version     string        `json:"version"`
	Cluster     string        `json:"cluster"`
	Store       string        `json:"store"`
	Starts      uint64        `json:"starts"`
	UptimeMs    int64         `json:"uptime_ms"`
	MetaLeader  uint64        `json:"meta_leader"`
	MapVersion  uint64        `json:"map_version"`
	Replicas    uint32        `json:"replicas"`
	Leaders     uint32        `json:"leaders"`
	Keys        uint64        `json:"keys"`
	Bytes       uint64        `json:"bytes"`
	DiskFree    uint64        `json:"disk_free_bytes"`
	DiskFull    bool          `json:"disk_full"`
	Memory      uint64        `json:"memory_budget_bytes"`
	CacheBytes  uint64        `json:"cache_bytes"`
	CacheHits   uint64        `json:"cache_hits"`
	CacheMisses uint64        `json:"cache_misses"`
	Local       []replicaJSON `json:"local,omitempty"`
}

// replicaJSON is a replica on the node that answers.
type replicaJSON struct {
	Shard     uint64  `json:"shard"`
	Replica   uint64  `json:"replica"`
	Role      string  `json:"role"`
	Leader    uint64  `json:"leader"`
	Term      uint64  `json:"term"`
	Truncated uint64  `json:"truncated"`
	Applied   uint64  `json:"applied"`
	Committed uint64  `json:"committed"`
	Last      uint64  `json:"last"`
	Revision  uint64  `json:"revision"`
	Keys      uint64  `json:"keys"`
	Bytes     uint64  `json:"bytes"`
	Load      float64 `json:"load"`
}

func statusOf(st *kvdv1.StatusResponse, replicas bool) statusJSON {
	n := st.GetNode()
	s := statusJSON{
		Node: nodeJSON{n.GetNode(), n.GetName(), n.GetAddress(), n.GetRegion(), "up"}, Version: st.Version, Cluster: fmt.Sprint(kv.ClusterID(st.ClusterId)),
		Store: fmt.Sprint(kv.StoreID(st.StoreId)), Starts: st.Life, UptimeMs: st.UptimeMs, MetaLeader: st.MetaLeader, MapVersion: st.MapVersion,
		Replicas: st.Replicas, Leaders: st.Leaders, Keys: st.Keys, Bytes: st.Bytes, DiskFree: st.DiskFreeBytes, DiskFull: st.DiskFull,
		Memory: st.MemoryBudgetBytes, CacheBytes: st.CacheBytes, CacheHits: st.CacheHits, CacheMisses: st.CacheMisses,
	}
	if !replicas {
		return s
	}
	s.Local = []replicaJSON{}
	for _, r := range st.Local {
		s.Local = append(s.Local, replicaJSON{
			r.Shard, r.Replica, r.Role, r.LeaderNode, r.Term, r.Truncated, r.Applied, r.Committed, r.Last, r.Revision, r.Keys, r.Bytes, r.Load,
		})
	}
	return s
}

func (c *cli) statusCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Describe the node that answers", Example: "  kvcli status\n  kvcli status --replicas", Args: cobra.NoArgs}
	replicas := cmd.Flags().Bool("replicas", false, "list its replicas too")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.with(cmd, true, func(ctx context.Context, cl *client.Client) error {
			st, err := cl.Status(ctx)
			if err != nil {
				return err
			}
			if c.output == "json" {
				return c.json(cmd, statusOf(st, *replicas))
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			disk := "ok"
			if st.DiskFull {
				disk = "nearly full: writes are refused"
			}
			for _, line := range [][2]any{
				{"node", fmt.Sprintf("%d (%s) at %s", st.GetNode().GetNode(), st.GetNode().GetName(), st.GetNode().GetAddress())},
				{"version", st.Version}, {"cluster", kv.ClusterID(st.ClusterId)}, {"store", kv.StoreID(st.StoreId)}, {"starts", st.Life},
				{"up", time.Duration(st.UptimeMs) * time.Millisecond}, {"replicas", st.Replicas}, {"leaders", st.Leaders},
				{"meta leader", st.MetaLeader}, {"keys", st.Keys}, {"bytes", st.Bytes}, {"disk", fmt.Sprintf("%s, %d MiB free", disk, st.DiskFreeBytes>>20)},
				{"memory", fmt.Sprintf("%d MiB", st.MemoryBudgetBytes>>20)}, {"cache", fmt.Sprintf("%d KiB, %d hits, %d misses", st.CacheBytes>>10, st.CacheHits, st.CacheMisses)},
			} {
				_, _ = fmt.Fprintf(w, "%v\t%v\n", line[0], line[1])
			}
			if *replicas {
				_, _ = fmt.Fprintln(w, "\nSHARD\tROLE\tLEADER\tTERM\tTRUNCATED\tAPPLIED\tCOMMITTED\tLAST\tREVISION\tKEYS")
				for _, r := range st.Local {
					_, _ = fmt.Fprintf(w, "%d\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", r.Shard, r.Role, r.LeaderNode, r.Term, r.Truncated, r.Applied, r.Committed, r.Last, r.Revision, r.Keys)
				}
			}
			return w.Flush()
		})
	}
	return cmd
}

func (c *cli) settingsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "settings", Short: "Settings of the cluster", Example: "  kvcli settings get\n  kvcli settings set log-keep 50000"}
	cmd.AddCommand(
		&cobra.Command{
			Use: "get [NAME]", Short: "Print the settings, or one", Example: "  kvcli settings get log-keep", Args: cobra.MaximumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return c.with(cmd, true, func(ctx context.Context, cl *client.Client) error {
					list, err := cl.Settings(ctx)
					if err != nil {
						return err
					}
					return c.printSettings(cmd, args, list)
				})
			},
		},
		&cobra.Command{
			Use: "set NAME VALUE", Short: "Change a setting; an empty VALUE is the default", Example: "  kvcli settings set log-keep 50000", Args: cobra.ExactArgs(2),
			RunE: func(cmd *cobra.Command, args []string) error {
				return c.with(cmd, true, func(ctx context.Context, cl *client.Client) error {
					setting, err := cl.SetSetting(ctx, args[0], args[1])
					if err != nil {
						return err
					}
					return c.printSettings(cmd, nil, []*kvdv1.Setting{setting})
				})
			},
		},
	)
	return cmd
}

func (c *cli) printSettings(cmd *cobra.Command, names []string, list []*kvdv1.Setting) error {
	type settingJSON struct {
		Name    string `json:"name"`
		Value   string `json:"value"`
		Default string `json:"default"`
		Bound   string `json:"bound"`
		Help    string `json:"help"`
	}
	out := []settingJSON{}
	for _, s := range list {
		if len(names) == 0 || names[0] == s.Name {
			out = append(out, settingJSON{s.Name, s.Value, s.DefaultValue, s.Bound, s.Help})
		}
	}
	switch {
	case len(out) == 0:
		return usage("NAME", "a setting's name, is "+names[0])
	case c.output == "json":
		return c.json(cmd, out)
	case len(names) == 1 || c.output == "raw":
		for _, s := range out {
			_, _ = fmt.Fprintln(cmd.OutOrStdout(), s.Value)
		}
		return nil
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "NAME\tVALUE\tDEFAULT\tBOUND\tWHAT")
	for _, s := range out {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", s.Name, s.Value, s.Default, s.Bound, s.Help)
	}
	return w.Flush()
}
