package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/backup"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

// backupTimeout is the default of --timeout for what saves and restores.
const backupTimeout = time.Hour

func (c *cli) backupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "backup", Short: "Save and restore all data",
		Example: "  kvcli backup save monday.kvd\n  kvcli backup verify monday.kvd\n  kvcli backup restore monday.kvd",
	}
	cmd.AddCommand(c.backupSaveCommand(), c.backupRestoreCommand(), c.backupVerifyCommand())
	return cmd
}

// backupJSON is what a backup holds, or what became of it.
type backupJSON struct {
	Path    string `json:"path"`
	Cluster string `json:"cluster"`
	BeganMs int64  `json:"began_ms"`
	Parts   uint64 `json:"parts"`
	Keys    uint64 `json:"keys"`
	Bytes   uint64 `json:"bytes"`
	TookMs  int64  `json:"took_ms"`
}

func (c *cli) printBackup(cmd *cobra.Command, verb, path string, h *kvdv1.BackupHeader, t backup.Totals, began time.Time) error {
	took := time.Since(began)
	if c.output == "json" {
		return c.json(cmd, backupJSON{path, fmt.Sprint(kv.ClusterID(h.GetClusterId())), h.GetBeganMs(), t.Parts, t.Keys, t.Bytes, took.Milliseconds()})
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s: %d keys, %d bytes, %d parts, of %s, in %v\n", path, verb, t.Keys, t.Bytes, t.Parts,
		time.UnixMilli(h.GetBeganMs()).Format(time.RFC3339), took.Round(time.Millisecond))
	return err
}

func (c *cli) backupSaveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "save DIR|FILE", Short: "Save all data, while the cluster serves", Args: cobra.ExactArgs(1),
		Long: `Save all keys with their values and expiries, the settings and the rules, to a file, or to a directory with a file for each
shard if the name ends with a slash or is an empty directory. Nothing is overwritten.

Each shard is saved as of one revision; there is no moment that all of them show. Shards may be split, merged and moved
meanwhile: each key is saved once. It takes up to --timeout (1h if not given).`,
		Example: "  kvcli backup save monday.kvd\n  kvcli backup save backups/monday/",
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("timeout") {
				c.timeout = backupTimeout
			}
			return c.with(cmd, false, func(ctx context.Context, cl *client.Client) error {
				began := time.Now()
				h, err := backupHeader(ctx, cl)
				if err != nil {
					return err
				}
				totals, err := save(ctx, cl, args[0], h)
				if err != nil {
					return err
				}
				return c.printBackup(cmd, "saved", args[0], h, totals, began)
			})
		},
	}
}

// backupHeader gathers what a backup holds besides keys.
func backupHeader(ctx context.Context, cl *client.Client) (*kvdv1.BackupHeader, error) {
	m, err := cl.Map(ctx)
	if err != nil {
		return nil, err
	}
	settings, err := cl.Settings(ctx)
	if err != nil {
		return nil, err
	}
	rules, err := cl.Rules(ctx)
	if err != nil {
		return nil, err
	}
	var id [8]byte
	_, _ = rand.Read(id[:])
	h := &kvdv1.BackupHeader{
		BackupId: binary.BigEndian.Uint64(id[:]), ClusterId: m.GetClusterId(), BeganMs: time.Now().UnixMilli(), Version: buildVersion(),
		Rules: rules, Descriptors: m.GetDescriptors(), Nodes: m.GetNodes(),
	}
	for _, s := range settings {
		if s.GetValue() != s.GetDefaultValue() {
			h.Settings = append(h.Settings, &kvdv1.SettingValue{Name: s.GetName(), Value: s.GetValue()})
		}
	}
	return h, nil
}

// save writes a backup, or leaves nothing.
func save(ctx context.Context, cl *client.Client, path string, h *kvdv1.BackupHeader) (backup.Totals, error) {
	w, err := backup.Create(path, h)
	if err != nil {
		return backup.Totals{}, err
	}
	counts := &bar{what: "keys saved", total: keysOf(ctx, cl)}
	stop := counts.draw()
	err = cl.Backup(ctx, &saving{w, counts})
	stop()
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return backup.Totals{}, errors.Join(err, w.Discard())
	}
	return w.Wrote(), nil
}

// keysOf counts the keys of the cluster, about; 0 when that is not known.
func keysOf(ctx context.Context, cl *client.Client) (keys uint64) {
	resp, err := cl.Shards(ctx)
	if err != nil {
		return 0
	}
	for _, s := range resp.GetShards() {
		keys += s.GetKeys()
	}
	return keys
}

// saving is a backup that shows how far it is.
type saving struct {
	*backup.Writer
	bar *bar
}

// End ends a part.
func (s *saving) End(keys, checksum uint64) error {
	err := s.Writer.End(keys, checksum)
	s.bar.done.Store(s.Wrote().Keys)
	return err
}

// bar draws on a terminal how far something is.
type bar struct {
	what  string
	total uint64 // 0 when it is not known.
	done  atomic.Uint64
}

const barWidth = 30

func (b *bar) text(began time.Time) string {
	done := b.done.Load()
	rate := fmt.Sprintf("%d %s, %.0f/s", done, b.what, float64(done)/time.Since(began).Seconds())
	if b.total == 0 {
		return rate
	}
	full := int(min(done*barWidth/b.total, barWidth))
	line := make([]byte, barWidth)
	for i := range line {
		line[i] = ' '
		if i < full {
			line[i] = '='
		}
	}
	return fmt.Sprintf("[%s] %d of %s", line, b.total, rate)
}

// draw draws until stop.
func (b *bar) draw() (stop func()) {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return func() {}
	}
	began, done, ended := time.Now(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(200 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				fmt.Fprint(os.Stderr, "\r\x1b[K")
				return
			case <-ticker.C:
				fmt.Fprint(os.Stderr, "\r\x1b[K", b.text(began))
			}
		}
	}()
	return func() { close(done); <-ended }
}

func (c *cli) backupVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "verify DIR|FILE", Short: "Check every byte of a backup", Args: cobra.ExactArgs(1),
		Long:    "Read all of a backup and check it: every checksum, that nothing is missing and that all keys are there once. It needs no cluster.",
		Example: "  kvcli backup verify monday.kvd",
		RunE: func(cmd *cobra.Command, args []string) error {
			began := time.Now()
			h, totals, err := verify(args[0])
			if err != nil {
				return err
			}
			return c.printBackup(cmd, "is whole", args[0], h, totals, began)
		},
	}
}

// verify reads all of a backup.
func verify(path string) (h *kvdv1.BackupHeader, totals backup.Totals, err error) {
	b := &bar{what: "keys checked"}
	defer b.draw()()
	totals, err = backup.Read(path, backup.Visitor{
		Header: func(x *kvdv1.BackupHeader) error { h = x; return nil },
		Pair:   func([]byte, kv.Record) error { b.done.Add(1); return nil },
	})
	return h, totals, err
}

func (c *cli) backupRestoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "restore DIR|FILE", Short: "Write a backup into an empty cluster", Args: cobra.ExactArgs(1),
		Long: `Write all that a backup holds into a cluster of any number of nodes, which must be empty unless --force: then keys that are
there and not in the backup stay. First the whole backup is checked; nothing is written of one that is damaged.

Settings and rules come first. Keys keep their values and the moments at which they expire; those that have expired since are
left out. Their revisions are new. A write whose end is not known is repeated until it is. It takes up to --timeout (1h if not
given), and exits 0 only if everything was written.`,
		Example: "  kvcli backup restore monday.kvd\n  kvcli --endpoints 10.0.0.1:7400 backup restore backups/monday/ --data-only",
	}
	force := cmd.Flags().Bool("force", false, "also into a cluster that has keys")
	dataOnly := cmd.Flags().Bool("data-only", false, "leave settings and rules out")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed("timeout") {
			c.timeout = backupTimeout
		}
		h, totals, err := verify(args[0])
		if err != nil {
			return err
		}
		return c.with(cmd, false, func(ctx context.Context, cl *client.Client) error {
			if !*force {
				if err := checkEmpty(ctx, cl); err != nil {
					return err
				}
			}
			refused := 0
			if !*dataOnly {
				refused = restoreConfiguration(ctx, cl, h)
			}
			r := &restore{i: newImporter(ctx, cl), bar: &bar{what: "keys written", total: totals.Keys}, now: time.Now}
			r.i.unit = "key"
			if err := r.run(cmd, c, args[0]); err != nil || refused == 0 {
				return err
			}
			return usage("restore", fmt.Sprintf("%d settings and rules were refused", refused))
		})
	}
	return cmd
}

func checkEmpty(ctx context.Context, cl *client.Client) error {
	for item, err := range cl.Scan(ctx, client.ScanOptions{Limit: 1, KeysOnly: true}) {
		if err != nil {
			return err
		}
		return usage("cluster", fmt.Sprintf("empty, or --force is given; it holds %s", kv.FormatKey(item.Key)))
	}
	return nil
}

// restoreConfiguration sets settings and rules. What this cluster refuses (a rule of a region that it has no node in, a
// setting that it does not know) is told and counted, and the rest goes on.
func restoreConfiguration(ctx context.Context, cl *client.Client, h *kvdv1.BackupHeader) (refused int) {
	for _, s := range h.GetSettings() {
		if _, err := cl.SetSetting(ctx, s.GetName(), s.GetValue()); err != nil {
			refused++
			fmt.Fprintf(os.Stderr, "kvcli: the setting %s was not restored: %v\n", s.GetName(), err)
		}
	}
	for _, rule := range h.GetRules() {
		if _, err := cl.SetRule(ctx, &kvdv1.SetRuleRequest{Rule: rule}); err != nil {
			refused++
			fmt.Fprintf(os.Stderr, "kvcli: the rule of %s was not restored: %v\n", orDash(kv.FormatKey(rule.GetPrefix())), err)
		}
	}
	return refused
}

// restore writes keys through a pipeline.
type restore struct {
	i       *importer
	bar     *bar
	now     func() time.Time
	expired uint64
}

type restoreJSON struct {
	Path    string `json:"path"`
	Written int64  `json:"written"`
	Expired uint64 `json:"expired"`
	Refused int64  `json:"refused"`
	Unknown int64  `json:"unknown"`
	TookMs  int64  `json:"took_ms"`
}

func (r *restore) run(cmd *cobra.Command, c *cli, path string) error {
	stop := r.bar.draw()
	number := 0
	_, err := backup.Read(path, backup.Visitor{Pair: func(key []byte, rec kv.Record) error {
		number++
		r.bar.done.Store(uint64(r.i.written.Load()))
		if rec.ExpireAt != 0 && rec.ExpireAt <= r.now().UnixMilli() {
			r.expired++
			return nil
		}
		var options []client.WriteOption
		if rec.ExpireAt != 0 {
			options = append(options, client.ExpireAt(time.UnixMilli(rec.ExpireAt)))
		}
		r.i.wait.Add(1)
		r.i.put(number, key, rec.Value, time.Now(), options...)
		if r.i.ctx.Err() != nil {
			return errLate
		}
		return nil
	}})
	r.i.wait.Wait()
	stop()
	left := errors.Is(err, errLate)
	if left {
		err = nil // The end tells.
	}
	out := restoreJSON{path, r.i.written.Load(), r.expired, r.i.refused.Load(), r.i.unknown.Load(), time.Since(r.i.began).Milliseconds()}
	if c.output == "json" {
		err = errors.Join(err, c.json(cmd, out))
	} else {
		_, printed := fmt.Fprintf(cmd.OutOrStdout(), "%s: %d keys restored, %d expired since, %d refused, %d unknown, in %v\n", path, out.Written, out.Expired, out.Refused, out.Unknown,
			time.Since(r.i.began).Round(time.Millisecond))
		err = errors.Join(err, printed)
	}
	late := ""
	if left {
		late = "--timeout came before everything was written"
	}
	return errors.Join(err, r.i.ended(late))
}

// errLate ends the reading at the end of --timeout.
var errLate = errors.New("late")
