package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

type ruleJSON struct {
	Prefix  string   `json:"prefix"`
	Regions []string `json:"regions"`
	Leader  string   `json:"leader"`
}

func (c *cli) ruleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rule", Short: "Placement rules: where replicas and leaders of a prefix are",
		Example: "  kvcli rule set --prefix eu/ --regions eu-west,eu-east --leader eu-west\n  kvcli rule list\n  kvcli rule remove --prefix eu/",
	}
	cmd.AddCommand(c.ruleSetCommand(), c.ruleRemoveCommand(), c.ruleListCommand())
	return cmd
}

func prefixFlag(cmd *cobra.Command) func() ([]byte, error) {
	prefix := cmd.Flags().String("prefix", "", "keys that begin with this; '' is all")
	return func() ([]byte, error) {
		if !cmd.Flags().Changed("prefix") {
			return nil, usage("prefix", "given; '' is all keys")
		}
		return kv.ParseKey(*prefix)
	}
}

func (c *cli) ruleSetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set", Short: "Bind a prefix to regions", Args: cobra.NoArgs,
		Long: `Bind the keys of a prefix to regions (kvd --region): their replicas are there, and their leader where --leader says. Shards
are split at the ends of the prefix, and moved. Of rules that meet, that with the longest prefix counts.`,
		Example: "  kvcli rule set --prefix us/ --regions us-west --leader us-west",
	}
	prefix := prefixFlag(cmd)
	regions := cmd.Flags().StringSlice("regions", nil, "where replicas are, with commas between")
	leader := cmd.Flags().String("leader", "", "where the leader is; one of the regions, or any of them")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		p, err := prefix()
		if err != nil {
			return err
		}
		if len(*regions) == 0 {
			return usage("regions", "at least one")
		}
		return c.setRule(cmd, &kvdv1.Rule{Prefix: p, Regions: *regions, Leader: *leader})
	}
	return cmd
}

func (c *cli) ruleRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "remove", Short: "Remove the rule of a prefix", Args: cobra.NoArgs, Example: "  kvcli rule remove --prefix us/"}
	prefix := prefixFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		p, err := prefix()
		if err != nil {
			return err
		}
		return c.setRule(cmd, &kvdv1.Rule{Prefix: p})
	}
	return cmd
}

func (c *cli) setRule(cmd *cobra.Command, rule *kvdv1.Rule) error {
	return c.with(cmd, true, func(ctx context.Context, cl *client.Client) error {
		if _, err := cl.SetRule(ctx, &kvdv1.SetRuleRequest{Rule: rule}); err != nil {
			return err
		}
		if len(rule.Regions) == 0 {
			return nil
		}
		if resp, err := cl.Nodes(ctx); err == nil {
			warnEmpty(rule.Regions, resp.GetNodes())
		}
		return c.printRules(cmd, []*kvdv1.Rule{rule})
	})
}

// warnEmpty tells of regions that no node is in: until one is, the rule cannot be followed there.
func warnEmpty(regions []string, nodes []*kvdv1.NodeInfo) {
	for _, region := range regions {
		if !slices.ContainsFunc(nodes, func(x *kvdv1.NodeInfo) bool { return x.GetNode().GetRegion() == region }) {
			fmt.Fprintf(os.Stderr, "kvcli: no node is in the region %s yet\n", region)
		}
	}
}

func (c *cli) ruleListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the rules", Args: cobra.NoArgs, Example: "  kvcli rule list -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd, true, func(ctx context.Context, cl *client.Client) error {
				rules, err := cl.Rules(ctx)
				if err != nil {
					return err
				}
				return c.printRules(cmd, rules)
			})
		},
	}
}

func (c *cli) printRules(cmd *cobra.Command, rules []*kvdv1.Rule) error {
	list := []ruleJSON{}
	for _, r := range rules {
		list = append(list, ruleJSON{kv.FormatKey(r.GetPrefix()), r.GetRegions(), r.GetLeader()})
	}
	if c.output == "json" {
		return c.json(cmd, list)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "PREFIX\tREGIONS\tLEADER")
	for _, r := range list {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", orDash(r.Prefix), strings.Join(r.Regions, ","), orDash(r.Leader))
	}
	return w.Flush()
}
