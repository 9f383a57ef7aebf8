package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/client"
)

type nodeJSON struct {
	Node    uint64 `json:"node"`
	Name    string `json:"name"`
	Address string `json:"address"`
	Region  string `json:"region"`
	State   string `json:"state"`
}

// memberJSON is a node of the list.
type memberJSON struct {
	nodeJSON
	Replicas uint32 `json:"replicas"`
	Meta     string `json:"meta,omitempty"`
}

func memberOf(x *kvdv1.NodeInfo) memberJSON {
	n := x.GetNode()
	m := memberJSON{nodeJSON: nodeJSON{n.GetNode(), n.GetName(), n.GetAddress(), n.GetRegion(), x.State}, Replicas: x.Replicas}
	switch {
	case x.MetaLeader:
		m.Meta = "leader"
	case x.MetaVoter:
		m.Meta = "voter"
	}
	return m
}

func (c *cli) nodesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "nodes", Short: "List the nodes", Example: "  kvcli nodes", Args: cobra.NoArgs,
		Long: `List the nodes with their state, as the node that answers sees it: up, draining, suspect (not heard of for 3 s), or down
(not heard of for the setting dead-after). REPLICAS counts those that the map places on the node, and META tells who votes in
the meta group and who leads it.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd, true, func(ctx context.Context, cl *client.Client) error {
				resp, err := cl.Nodes(ctx)
				if err != nil {
					return err
				}
				list := make([]memberJSON, 0, len(resp.Nodes))
				for _, x := range resp.Nodes {
					list = append(list, memberOf(x))
				}
				if c.output == "json" {
					return c.json(cmd, list)
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				_, _ = fmt.Fprintln(w, "NODE\tNAME\tADDRESS\tREGION\tSTATE\tREPLICAS\tMETA")
				for _, x := range list {
					_, _ = fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%d\t%s\n", x.Node, x.Name, x.Address, orDash(x.Region), x.State, x.Replicas, orDash(x.Meta))
				}
				return w.Flush()
			})
		},
	}
}

func (c *cli) nodeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "Drain or remove a node", Example: "  kvcli node drain n3\n  kvcli node remove n3"}
	cmd.AddCommand(c.drainCommand(), c.removeCommand())
	return cmd
}

func (c *cli) drainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "drain NODE", Short: "Move everything off a node", Args: cobra.ExactArgs(1),
		Long: `Move all replicas and leaderships off a node, given by its id or its name, and wait until it holds none (1h if --timeout is
not given). It serves meanwhile, and gets nothing new until --undo.`,
		Example: "  kvcli node drain n3\n  kvcli node drain n3 --undo",
	}
	undo := cmd.Flags().Bool("undo", false, "let the node have replicas again")
	w := c.waits(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return w.with(cmd, drainTimeout, func(ctx context.Context, cl *client.Client) error {
			x, err := w.setDraining(ctx, cl, args[0], !*undo)
			if err != nil {
				return err
			}
			if *undo || *w.noWait {
				return c.printMember(cmd, x)
			}
			err = w.until(ctx, nodeText(x)+" is not empty", func(ctx context.Context) (bool, string, error) {
				now, err := findNode(ctx, cl, "NODE", fmt.Sprint(x.GetNode().GetNode()))
				if err != nil {
					return false, "", err
				}
				x = now
				// The node that answers may hear a moment later that this one is draining: then it may get another replica.
				done := x.GetReplicas() == 0 && x.GetState() != "up"
				return done, fmt.Sprintf("%s: %d replicas left", nodeText(x), x.GetReplicas()), nil
			})
			if err != nil {
				return err
			}
			return c.printMember(cmd, x)
		})
	}
	return cmd
}

// setDraining finds a node, and begins or ends its draining.
func (w *waiter) setDraining(ctx context.Context, cl *client.Client, name string, draining bool) (*kvdv1.NodeInfo, error) {
	ctx, cancel := w.once(ctx)
	defer cancel()
	x, err := findNode(ctx, cl, "NODE", name)
	if err != nil {
		return nil, err
	}
	resp, err := cl.SetDraining(ctx, &kvdv1.SetDrainingRequest{Node: x.GetNode().GetNode(), Draining: draining})
	x.Replicas = resp.GetReplicas()
	switch {
	case draining && x.State == "up":
		x.State = "draining"
	case !draining && x.State == "draining":
		x.State = "up"
	}
	return x, err
}

func (c *cli) printMember(cmd *cobra.Command, x *kvdv1.NodeInfo) error {
	if c.output == "json" {
		return c.json(cmd, memberOf(x))
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is %s and holds %d replicas\n", nodeText(x), x.GetState(), x.GetReplicas())
	return err
}

func (c *cli) removeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "remove NODE", Short: "Forget a node that holds no replicas", Args: cobra.ExactArgs(1),
		Long: `Make the cluster forget a node, given by its id or its name, that holds no replicas: it was drained, or was dead long enough
for its replicas to be made again elsewhere. Its process may be stopped before or afterwards; it is not let in again, and its
data directory is of no use any more.`,
		Example: "  kvcli node drain n3 && kvcli node remove n3",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd, true, func(ctx context.Context, cl *client.Client) error {
				x, err := findNode(ctx, cl, "NODE", args[0])
				if err != nil {
					return err
				}
				if _, err := cl.RemoveNode(ctx, &kvdv1.RemoveNodeRequest{Node: x.GetNode().GetNode()}); err != nil {
					return err
				}
				if c.output == "json" {
					x.State = "removed"
					return c.json(cmd, memberOf(x))
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is removed\n", nodeText(x))
				return err
			})
		},
	}
}
