// Command kvcli is the command line of kvd.
package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

// What the process ends with.
const (
	exitDone    = 0
	exitNo      = 1 // Not found, or a condition was not met.
	exitUsage   = 2 // Usage, or an input that was refused.
	exitNotDone = 3
	exitUnknown = 4
)

// errNo ends with exitNo and without a message.
var errNo = errors.New("no")

// version is set when a release is built.
var version = "dev"

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.Execute()
	code := exitCode(err)
	if err != nil && !errors.Is(err, errNo) {
		fmt.Fprintln(os.Stderr, "kvcli:", message(err, code))
	}
	return code
}

// message says with an error what it means for what was asked.
func message(err error, code int) string {
	switch code {
	case exitNotDone:
		return "not done: " + err.Error()
	case exitUnknown:
		return "unknown, it may have been done: " + err.Error()
	}
	return err.Error()
}

func exitCode(err error) int {
	if err == nil {
		return exitDone
	}
	switch {
	case errors.Is(err, errNo):
		return exitNo
	case errors.As(err, new(*kv.InvalidError)), errors.As(err, new(*kv.CrossShardError)), errors.Is(err, kv.ErrNotANumber), errors.Is(err, kv.ErrUnsupported):
		return exitUsage
	case errors.Is(err, client.ErrUnknown):
		return exitUnknown
	case errors.Is(err, client.ErrNotDone):
		return exitNotDone
	}
	return exitUsage
}

// cli are the flags of all commands.
type cli struct {
	endpoints     string
	timeout       time.Duration
	output        string
	cert, key, ca string
}

// defaultEndpoint is where a kvd on this machine listens.
const defaultEndpoint = "127.0.0.1:7400"

func newRoot() *cobra.Command {
	c := &cli{}
	root := &cobra.Command{
		Use: "kvcli", Short: "The command line of kvd",
		Long: `The command line of kvd.

Keys are text in which \xNN is a byte and \\ a backslash, or hex:… or base64:…; they are printed as such text.
Exit codes: 0 done; 1 not found, or a condition was not met; 2 usage or an input that was refused; 3 not done;
4 unknown: a write that may have been done.`,
		Example:       "  kvcli put hello world\n  kvcli get hello",
		SilenceErrors: true, SilenceUsage: true, Version: buildVersion(),
	}
	f := root.PersistentFlags()
	f.StringVar(&c.endpoints, "endpoints", cmp.Or(os.Getenv("KVCLI_ENDPOINTS"), defaultEndpoint), "HOST:PORT of nodes, with commas between (KVCLI_ENDPOINTS)")
	f.DurationVar(&c.timeout, "timeout", 5*time.Second, "how long a command may take; without it import, split, merge and move: 5m, scan, export, node drain and backup: 1h")
	f.StringVarP(&c.output, "output", "o", "table", "table, json or raw")
	f.StringVar(&c.cert, "tls-cert", "", "certificate of the caller (PEM)")
	f.StringVar(&c.key, "tls-key", "", "its key (PEM)")
	f.StringVar(&c.ca, "tls-ca", "", "certificates that nodes must be signed by (PEM); turns TLS on")
	root.AddCommand(
		c.getCommand(), c.putCommand(), c.delCommand(), c.casCommand(), c.incrCommand(), c.txnCommand(), c.scanCommand(),
		c.importCommand(), c.exportCommand(), c.shardsCommand(), c.nodesCommand(), c.statusCommand(), c.settingsCommand(),
		c.splitCommand(), c.mergeCommand(), c.moveCommand(), c.transferCommand(), c.nodeCommand(), c.ruleCommand(),
		c.whyCommand(), c.eventsCommand(), c.hotCommand(), c.backupCommand(), c.verifyCommand(),
		&cobra.Command{
			Use: "man DIR", Short: "Write man pages", Example: "  kvcli man /usr/local/share/man/man1", Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error {
				return doc.GenManTree(root, &doc.GenManHeader{Title: "KVCLI", Section: "1"}, args[0])
			},
		},
		&cobra.Command{
			Use: "version", Short: "Print the version", Example: "  kvcli version", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				if c.output == "json" {
					return c.json(cmd, map[string]string{"version": buildVersion(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "kvcli", buildVersion())
				return err
			},
		},
	)
	sayUsage(root)
	return root
}

// sayUsage makes a wrong number of arguments be answered with what a command takes.
func sayUsage(cmd *cobra.Command) {
	if check := cmd.Args; check != nil && !cmd.HasSubCommands() {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if check(cmd, args) != nil {
				return usage("usage", strings.TrimSuffix(cmd.UseLine(), " [flags]"))
			}
			return nil
		}
	}
	for _, child := range cmd.Commands() {
		sayUsage(child)
	}
}

func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && version == "dev" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return "dev-" + s.Value[:12]
			}
		}
	}
	return version
}

// connect makes a client; only keeps to the endpoints.
func (c *cli) connect(only bool) (*client.Client, error) {
	if !slices.Contains([]string{"table", "json", "raw"}, c.output) {
		return nil, &kv.InvalidError{Field: "output", Bound: "table, json or raw, is " + c.output}
	}
	if c.timeout <= 0 {
		return nil, &kv.InvalidError{Field: "timeout", Bound: "above 0"}
	}
	var endpoints []string
	for _, e := range strings.Split(c.endpoints, ",") {
		if e = strings.TrimSpace(e); e != "" {
			endpoints = append(endpoints, e)
		}
	}
	config := client.Config{Endpoints: endpoints, Only: only}
	if c.ca != "" || c.cert != "" || c.key != "" {
		var err error
		if config.TLS, err = c.tls(); err != nil {
			return nil, err
		}
	}
	return client.New(config)
}

func (c *cli) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.ca != "" {
		pem, err := os.ReadFile(c.ca)
		if err != nil {
			return nil, fmt.Errorf("tls-ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, &kv.InvalidError{Field: "tls-ca", Bound: "a file with certificates"}
		}
	}
	if c.cert != "" || c.key != "" {
		cert, err := tls.LoadX509KeyPair(c.cert, c.key)
		if err != nil {
			return nil, fmt.Errorf("tls-cert, tls-key: %w", err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return config, nil
}

// with calls f with a client and a context of the command's time-out.
func (c *cli) with(cmd *cobra.Command, only bool, f func(ctx context.Context, cl *client.Client) error) error {
	cl, err := c.connect(only)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
	defer cancel()
	return f(ctx, cl)
}

// quiet is an error that only errors.Is sees.
type quiet struct{ error }

func (quiet) Error() string   { return "" }
func (q quiet) Unwrap() error { return q.error }

func (c *cli) json(cmd *cobra.Command, v any) error {
	return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
}

func usage(field, bound string) error { return &kv.InvalidError{Field: field, Bound: bound} }
