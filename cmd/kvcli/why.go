package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

// followPause is between two looks for new events.
const followPause = time.Second

type eventJSON struct {
	TimeMs  int64  `json:"time_ms"`
	Kind    string `json:"kind"`
	State   string `json:"state"`
	Shard   uint64 `json:"shard,omitempty"`
	Other   uint64 `json:"other,omitempty"`
	Node    uint64 `json:"node,omitempty"`
	Goal    uint64 `json:"goal,omitempty"`
	Text    string `json:"text"`
	Version uint64 `json:"version,omitempty"`
}

func eventOf(e *kvdv1.Event) eventJSON {
	return eventJSON{e.TimeMs, e.Kind, e.State, e.Shard, e.Other, e.Node, e.Goal, e.Text, e.Version}
}

func eventsOf(list []*kvdv1.Event) []eventJSON {
	out := []eventJSON{}
	for _, e := range list {
		out = append(out, eventOf(e))
	}
	return out
}

const eventHead = "TIME\tKIND\tSTATE\tSHARD\tNODE\tGOAL\tWHAT"

func (e eventJSON) row() string {
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s", time.UnixMilli(e.TimeMs).Format("2006-01-02 15:04:05"), e.Kind, e.State,
		idOrDash(e.Shard), idOrDash(e.Node), idOrDash(e.Goal), orDash(e.Text))
}

func idOrDash(id uint64) string {
	if id == 0 {
		return "-"
	}
	return fmt.Sprint(id)
}

func printEvents(out io.Writer, list []eventJSON) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, eventHead)
	for _, e := range list {
		_, _ = fmt.Fprintln(w, e.row())
	}
	return w.Flush()
}

func (c *cli) eventsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "events", Short: "List what was decided and has happened of late", Args: cobra.NoArgs,
		Long: `List what was decided and has happened of late, oldest first: splits, merges, moves, repairs, nodes that came and went; what
was wanted, what was done, and what was refused or given up and why. Nodes remember the last 4,096 since their start.`,
		Example: "  kvcli events --limit 20\n  kvcli events --shard 7 -o json\n  kvcli events --follow",
	}
	shard := cmd.Flags().Uint64("shard", 0, "only of this shard")
	limit := cmd.Flags().Uint32("limit", kv.EventsDefault, "at most so many, the newest")
	follow := cmd.Flags().Bool("follow", false, "go on with those that come")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r := &kvdv1.EventsRequest{Limit: *limit, Shard: *shard}
		if *limit == 0 || *limit > kv.EventsMax {
			return usage("limit", fmt.Sprintf("from 1 to %d, is %d", kv.EventsMax, *limit))
		}
		if *follow {
			return c.follow(cmd, r)
		}
		return c.with(cmd, true, func(ctx context.Context, cl *client.Client) error {
			resp, err := cl.Events(ctx, r)
			if err != nil {
				return err
			}
			tellSilent(resp.GetSilentNodes())
			list := eventsOf(resp.GetEvents())
			if c.output == "json" {
				return c.json(cmd, list)
			}
			return printEvents(cmd.OutOrStdout(), list)
		})
	}
	return cmd
}

// tellSilent names the nodes that did not answer.
func tellSilent(nodes []uint64) {
	for _, id := range nodes {
		fmt.Fprintf(os.Stderr, "kvcli: node %d did not answer\n", id)
	}
}

// follow prints events as they come, until the process is told to end.
func (c *cli) follow(cmd *cobra.Command, r *kvdv1.EventsRequest) error {
	cl, err := c.connect(true)
	if err != nil {
		return err
	}
	defer cl.Close()
	ticker := time.NewTicker(followPause)
	defer ticker.Stop()
	seen := map[eventJSON]bool{}
	for first := true; ; first = false {
		ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
		resp, err := cl.Events(ctx, r)
		cancel()
		if err != nil && first {
			return err
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "kvcli:", err)
		} else if err := c.printNew(cmd, resp.GetEvents(), seen); err != nil {
			return err
		}
		r.Limit = kv.EventsMax
		select {
		case <-cmd.Context().Done():
			return nil
		case <-ticker.C:
		}
	}
}

// printNew prints the events that are not in seen, and makes seen those that are known now.
func (c *cli) printNew(cmd *cobra.Command, events []*kvdv1.Event, seen map[eventJSON]bool) error {
	now := map[eventJSON]bool{}
	for _, e := range eventsOf(events) {
		if now[e] = true; seen[e] {
			continue
		}
		if c.output == "json" {
			if err := c.json(cmd, e); err != nil {
				return err
			}
			continue
		}
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), strings.ReplaceAll(e.row(), "\t", "  ")); err != nil {
			return err
		}
	}
	clear(seen)
	for e := range now {
		seen[e] = true
	}
	return nil
}

type whyJSON struct {
	Shard    *shardJSON  `json:"shard"`
	Goal     *whyGoal    `json:"goal"`
	Progress string      `json:"progress"`
	Verdicts []string    `json:"verdicts"`
	Events   []eventJSON `json:"events"`
}

type whyGoal struct {
	Goal       uint64 `json:"goal"`
	Kind       string `json:"kind"`
	Reason     string `json:"reason"`
	ByOperator bool   `json:"by_operator"`
	SinceMs    int64  `json:"since_ms"`
}

func kindOf(g *kvdv1.Goal) string {
	switch x := g.GetGoal().(type) {
	case *kvdv1.Goal_Split:
		if len(x.Split.GetKey()) > 0 {
			return "split at " + kv.FormatKey(x.Split.GetKey())
		}
		return "split"
	case *kvdv1.Goal_Merge:
		return fmt.Sprintf("merge with shard %d", x.Merge.GetRight())
	case *kvdv1.Goal_Replicas:
		var add []uint64
		for _, r := range x.Replicas.GetAdd() {
			add = append(add, r.GetNode())
		}
		return fmt.Sprintf("replicas: to nodes %v, from nodes %v", add, x.Replicas.GetRemove())
	}
	return "one that this kvcli does not know"
}

func (c *cli) whyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "why [SHARD]", Short: "Tell what was decided of a shard, and what was not, and why", Args: cobra.MaximumNArgs(1),
		Long: `Tell of a shard, given by its id or by a --key that it holds: what it is, what is being done with it and what that waits for,
what the plan considers (what it would do, and why it does not), and what has happened to it of late.`,
		Example: "  kvcli why 7\n  kvcli why --key geo/u09t",
	}
	key := cmd.Flags().String("key", "", "the shard that holds this key")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r := &kvdv1.WhyRequest{}
		var err error
		switch {
		case (len(args) == 1) == cmd.Flags().Changed("key"):
			return usage("why", "either SHARD or --key")
		case len(args) == 1:
			r.Shard, err = shardArg(args[0])
		default:
			if r.Key, err = kv.ParseKey(*key); err == nil {
				err = kv.CheckKey("key", r.Key)
			}
		}
		if err != nil {
			return err
		}
		return c.with(cmd, true, func(ctx context.Context, cl *client.Client) error {
			resp, err := cl.Why(ctx, r)
			if err != nil {
				return err
			}
			w := whyJSON{Progress: resp.GetProgress(), Verdicts: resp.GetVerdicts(), Events: eventsOf(resp.GetEvents())}
			if resp.GetShard() != nil {
				w.Shard = new(shardOf(resp.GetShard()))
			}
			if g := resp.GetGoal(); g != nil {
				w.Goal = &whyGoal{g.GetId(), kindOf(g), g.GetReason(), g.GetByOperator(), g.GetSinceMs()}
			}
			if c.output == "json" {
				return c.json(cmd, w)
			}
			return w.print(cmd.OutOrStdout())
		})
	}
	return cmd
}

func (w whyJSON) print(out io.Writer) error {
	if s := w.Shard; s != nil {
		_, _ = fmt.Fprintf(out, "shard %d holds [%s, %s), led by node %d, on nodes %s, epoch %d.%d\n", s.Shard, s.Start, s.End, s.Leader,
			strings.Trim(fmt.Sprint(s.Replicas), "[]"), s.Epoch.Version, s.Epoch.Config)
		_, _ = fmt.Fprintf(out, "  %d keys, %d bytes, %.0f requests/s (%.0f reads, %.0f writes)%s\n", s.Keys, s.Bytes, s.Load, s.Reads, s.Writes,
			map[bool]string{true: ", asleep"}[s.Asleep])
	}
	if g := w.Goal; g != nil {
		_, _ = fmt.Fprintf(out, "goal %d, since %v: %s, because %s\n", g.Goal, age(g.SinceMs), g.Kind, cmp.Or(g.Reason, "of a reason that was not told"))
	} else {
		_, _ = fmt.Fprintln(out, "it has no goal")
	}
	if w.Progress != "" {
		_, _ = fmt.Fprintln(out, "  now:", w.Progress)
	}
	if len(w.Verdicts) > 0 {
		_, _ = fmt.Fprintln(out, "the plan:")
		for _, v := range w.Verdicts {
			_, _ = fmt.Fprintln(out, " -", v)
		}
	}
	if len(w.Events) == 0 {
		return nil
	}
	_, _ = fmt.Fprintln(out)
	return printEvents(out, w.Events)
}

type hotJSON struct {
	shardJSON
	Hot []hotKeyJSON `json:"hot"`
}

type hotKeyJSON struct {
	Key   string  `json:"key"`
	Share float64 `json:"share"`
}

func (c *cli) hotCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "hot", Short: "List the hottest shards and keys", Args: cobra.NoArgs,
		Long:    "List the shards with the most requests a second, over the last 10 s, each with the keys that took the largest shares of them.",
		Example: "  kvcli hot\n  kvcli hot --limit 3 -o json",
	}
	limit := cmd.Flags().Uint32("limit", kv.HotDefault, "at most so many shards")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *limit == 0 || *limit > kv.HotMax {
			return usage("limit", fmt.Sprintf("from 1 to %d, is %d", kv.HotMax, *limit))
		}
		return c.with(cmd, true, func(ctx context.Context, cl *client.Client) error {
			resp, err := cl.Hot(ctx, &kvdv1.HotRequest{Limit: *limit})
			if err != nil {
				return err
			}
			tellSilent(resp.GetSilentNodes())
			list := []hotJSON{}
			for _, s := range resp.GetShards() {
				h := hotJSON{shardJSON: shardOf(s.GetShard()), Hot: []hotKeyJSON{}}
				for _, k := range s.GetKeys() {
					h.Hot = append(h.Hot, hotKeyJSON{kv.FormatKey(k.GetKey()), k.GetShare()})
				}
				list = append(list, h)
			}
			if c.output == "json" {
				return c.json(cmd, list)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			_, _ = fmt.Fprintln(w, "SHARD\tSTART\tEND\tLEADER\tLOAD\tREADS\tWRITES\tHOTTEST KEYS")
			for _, h := range list {
				var keys []string
				for _, k := range h.Hot {
					keys = append(keys, fmt.Sprintf("%s %.0f%%", k.Key, 100*k.Share))
				}
				_, _ = fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%.0f/s\t%.0f/s\t%.0f/s\t%s\n", h.Shard, orDash(h.Start), orDash(h.End), h.Leader, h.Load, h.Reads, h.Writes,
					orDash(strings.Join(keys, ", ")))
			}
			return w.Flush()
		})
	}
	return cmd
}
