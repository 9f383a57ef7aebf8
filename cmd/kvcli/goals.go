package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

// shardArg reads SHARD.
func shardArg(text string) (uint64, error) {
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil || id == 0 {
		return 0, usage("SHARD", "the id of a shard, a number from 1, is "+text)
	}
	return id, nil
}

// node finds a node by its id or its name.
func findNode(ctx context.Context, cl *client.Client, field, text string) (*kvdv1.NodeInfo, error) {
	if text == "" {
		return nil, usage(field, "the id or the name of a node")
	}
	resp, err := cl.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	id, _ := strconv.ParseUint(text, 10, 64)
	for _, x := range resp.GetNodes() {
		if x.GetNode().GetName() == text {
			return x, nil
		}
	}
	for _, x := range resp.GetNodes() {
		if id != 0 && x.GetNode().GetNode() == id {
			return x, nil
		}
	}
	return nil, usage(field, "the id or the name of a node, is "+text)
}

func nodeText(x *kvdv1.NodeInfo) string {
	return fmt.Sprintf("%s (node %d)", x.GetNode().GetName(), x.GetNode().GetNode())
}

func dryRunFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("dry-run", false, "only say what would be done")
}

func (c *cli) splitCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "split [SHARD]", Short: "Split a shard", Args: cobra.MaximumNArgs(1),
		Long: `Split a shard: the one of a --key, there; or SHARD, --at a key or where kvd chooses, which is where it halves the shard.
It waits until the shard is split (5m if --timeout is not given), and says on standard error for what.`,
		Example: "  kvcli split --key geo/u09t\n  kvcli split 7\n  kvcli split 7 --at geo/u09t --dry-run",
	}
	key := cmd.Flags().String("key", "", "split the shard that holds this key, there")
	at := cmd.Flags().String("at", "", "where SHARD is split")
	dryRun, w := dryRunFlag(cmd), c.waits(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r := &kvdv1.SplitShardRequest{DryRun: *dryRun}
		f := cmd.Flags()
		if (len(args) == 1) == f.Changed("key") || f.Changed("at") && f.Changed("key") {
			return usage("split", "either SHARD, with --at or without, or --key")
		}
		var err error
		if len(args) == 1 {
			if r.Shard, err = shardArg(args[0]); err != nil {
				return err
			}
		}
		for name, text := range map[string]string{"key": *key, "at": *at} {
			if !f.Changed(name) {
				continue
			}
			if r.Key, err = kv.ParseKey(text); err == nil {
				err = kv.CheckKey(name, r.Key)
			}
			if err != nil {
				return err
			}
		}
		return w.with(cmd, waitTimeout, func(ctx context.Context, cl *client.Client) error {
			one, cancel := w.once(ctx)
			defer cancel()
			resp, err := cl.SplitShard(one, r)
			if err != nil {
				return err
			}
			return w.goal(ctx, cmd, cl, resp)
		})
	}
	return cmd
}

func (c *cli) mergeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "merge SHARD", Short: "Merge a shard with its right neighbour", Args: cobra.ExactArgs(1),
		Long:    "Merge a shard with its right neighbour, which it absorbs. It waits until that is done (5m if --timeout is not given).",
		Example: "  kvcli merge 7\n  kvcli merge 7 --dry-run",
	}
	dryRun, w := dryRunFlag(cmd), c.waits(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		shard, err := shardArg(args[0])
		if err != nil {
			return err
		}
		return w.with(cmd, waitTimeout, func(ctx context.Context, cl *client.Client) error {
			one, cancel := w.once(ctx)
			defer cancel()
			resp, err := cl.MergeShard(one, &kvdv1.MergeShardRequest{Shard: shard, DryRun: *dryRun})
			if err != nil {
				return err
			}
			return w.goal(ctx, cmd, cl, resp)
		})
	}
	return cmd
}

func (c *cli) moveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "move SHARD", Short: "Move a shard's replica from one node to another", Args: cobra.ExactArgs(1),
		Long: `Move a shard's replica from one node to another, each given by its id or its name. The new replica gets a copy first;
the shard keeps as many as it has at every moment. It waits until that is done (5m if --timeout is not given).`,
		Example: "  kvcli move 7 --from n1 --to n4\n  kvcli move 7 --from 1 --to 4 --no-wait",
	}
	from := cmd.Flags().String("from", "", "NODE that holds a replica")
	to := cmd.Flags().String("to", "", "NODE that is to hold it")
	dryRun, w := dryRunFlag(cmd), c.waits(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		shard, err := shardArg(args[0])
		if err != nil {
			return err
		}
		return w.with(cmd, waitTimeout, func(ctx context.Context, cl *client.Client) error {
			one, cancel := w.once(ctx)
			defer cancel()
			a, err := findNode(one, cl, "from", *from)
			if err != nil {
				return err
			}
			b, err := findNode(one, cl, "to", *to)
			if err != nil {
				return err
			}
			resp, err := cl.MoveReplica(one, &kvdv1.MoveReplicaRequest{
				Shard: shard, FromNode: a.GetNode().GetNode(), ToNode: b.GetNode().GetNode(), DryRun: *dryRun,
			})
			if err != nil {
				return err
			}
			return w.goal(ctx, cmd, cl, resp)
		})
	}
	return cmd
}

func (c *cli) transferCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "transfer SHARD", Short: "Hand a shard's leadership to a node", Args: cobra.ExactArgs(1),
		Long:    "Hand a shard's leadership to the replica on a node, given by its id or its name, and wait until that leads.",
		Example: "  kvcli transfer 7 --to n2",
	}
	to := cmd.Flags().String("to", "", "NODE that is to lead; it holds a replica")
	dryRun := dryRunFlag(cmd)
	noWait := cmd.Flags().Bool("no-wait", false, "answer when the leader is asked for it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		shard, err := shardArg(args[0])
		if err != nil {
			return err
		}
		return c.with(cmd, true, func(ctx context.Context, cl *client.Client) error {
			b, err := findNode(ctx, cl, "to", *to)
			if err != nil {
				return err
			}
			p := newProgress()
			p.show(fmt.Sprintf("shard %d: waiting for %s to lead", shard, nodeText(b)))
			resp, err := cl.TransferLeader(ctx, &kvdv1.TransferLeaderRequest{
				Shard: shard, ToNode: b.GetNode().GetNode(), DryRun: *dryRun, NoWait: *noWait,
			})
			p.end()
			if err != nil {
				return err
			}
			if c.output == "json" {
				return c.json(cmd, map[string]uint64{"shard": shard, "leader": resp.GetLeader()})
			}
			out := cmd.OutOrStdout()
			switch {
			case resp.GetLeader() == b.GetNode().GetNode():
				_, err = fmt.Fprintf(out, "shard %d is led by %s\n", shard, nodeText(b))
			case *dryRun:
				_, err = fmt.Fprintf(out, "nothing was changed; node %d would hand shard %d over to %s\n", resp.GetLeader(), shard, nodeText(b))
			default:
				_, err = fmt.Fprintf(out, "node %d is asked to hand shard %d over to %s\n", resp.GetLeader(), shard, nodeText(b))
			}
			return err
		})
	}
	return cmd
}
