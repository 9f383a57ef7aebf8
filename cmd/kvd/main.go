// Command kvd is the daemon: one node of a cluster.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/kvdstore/kvd/node"
)

// version is set when a release is built.
var version = "dev"

func main() {
	if err := root().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "kvd:", err)
		if errors.Is(err, node.ErrRemoved) {
			os.Exit(exitRemoved)
		}
		os.Exit(1)
	}
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kvd",
		Short: "A replicated, linearizable key-value store that keeps its working set in memory",
		Example: `  kvd                                   founds a cluster of one node
  kvd --name n2 --listen 10.0.0.2:7400 --join 10.0.0.1:7400
                                        lets another into it
  kvd --name n1 --listen 10.0.0.1:7400 --initial-cluster n1=10.0.0.1:7400,n2=10.0.0.2:7400,n3=10.0.0.3:7400`,
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := loadSettings(cmd.Flags(), os.Environ())
			if err != nil {
				return err
			}
			return run(s)
		},
	}
	defineFlags(cmd.PersistentFlags())
	cmd.AddCommand(&cobra.Command{
		Use: "check-config", Short: "Print each setting with its value and where it came from, and check them", Args: cobra.NoArgs,
		Example: "  kvd check-config --config /etc/kvd/kvd.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := loadSettings(cmd.Flags(), os.Environ())
			if err != nil {
				return err
			}
			s.print(cmd.OutOrStdout())
			return nil
		},
	}, versionCommand())
	return cmd
}

func versionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs, Example: "  kvd version -o json"}
	format := cmd.Flags().StringP("output", "o", "text", "text or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v := map[string]string{"version": buildVersion(), "go": runtime.Version(), "platform": platform}
		switch *format {
		case "json":
			return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
		case "text":
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "kvd %s (%s, %s)\n", v["version"], v["go"], v["platform"])
			return err
		}
		return fmt.Errorf("output: text or json, is %q", *format)
	}
	return cmd
}

// buildVersion is the release's, or the commit that the program was built from.
func buildVersion() string {
	if version != "dev" {
		return version + buildSuffix
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return "dev-" + s.Value[:12] + buildSuffix
			}
		}
	}
	return version + buildSuffix
}
