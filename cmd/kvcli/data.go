package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

// value reads VALUE: itself, @FILE, or - for standard input.
func value(cmd *cobra.Command, arg string) ([]byte, error) {
	switch {
	case arg == "-":
		return io.ReadAll(io.LimitReader(cmd.InOrStdin(), kv.ValueBytesMax+1))
	case len(arg) > 1 && arg[0] == '@':
		f, err := os.Open(arg[1:])
		if err != nil {
			return nil, err
		}
		text, err := io.ReadAll(io.LimitReader(f, kv.ValueBytesMax+1))
		return text, errors.Join(err, f.Close())
	}
	return []byte(arg), nil
}

// record is an item as JSON. A value that is no text is given in base64; without values there is neither.
type record struct {
	Key      string  `json:"key"`
	Value    *string `json:"value,omitempty"`
	ValueB64 []byte  `json:"value_base64,omitempty"`
	Revision uint64  `json:"revision"`
	ExpireAt int64   `json:"expire_at_ms,omitempty"`
}

func recordOf(i client.Item) record {
	r := record{Key: kv.FormatKey(i.Key), Revision: uint64(i.Record.Revision), ExpireAt: i.Record.ExpireAt}
	r.Value, r.ValueB64 = textOrBytes(i.Record.Value)
	return r
}

// textOrBytes gives a value as text if it is some.
func textOrBytes(value []byte) (*string, []byte) {
	if text := string(value); utf8.ValidString(text) {
		return &text, nil
	}
	return nil, value
}

func (c *cli) getCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "get KEY", Short: "Print the value of a key", Example: "  kvcli get hello\n  kvcli get hello -o json\n  kvcli get hello --level eventual", Args: cobra.ExactArgs(1)}
	level := cmd.Flags().String("level", "linearizable", "linearizable, or eventual: what any replica holds")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		key, err := kv.ParseKey(args[0])
		if err != nil {
			return err
		}
		var options []client.ReadOption
		switch *level {
		case "eventual":
			options = append(options, client.Eventual())
		case "linearizable":
		default:
			return usage("level", "linearizable or eventual, is "+*level)
		}
		return c.with(cmd, true, func(ctx context.Context, cl *client.Client) error {
			item, found, err := cl.Get(ctx, key, options...)
			switch {
			case err != nil:
				return err
			case !found:
				fmt.Fprintln(os.Stderr, "kvcli: there is no key", args[0])
				return errNo
			case c.output == "json":
				return c.json(cmd, recordOf(item))
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", item.Record.Value)
			return err
		})
	}
	return cmd
}

// wrote prints how a write ended.
func (c *cli) wrote(cmd *cobra.Command, succeeded bool, revision kv.Revision) error {
	if c.output == "json" {
		if err := c.json(cmd, map[string]any{"succeeded": succeeded, "revision": uint64(revision)}); err != nil {
			return err
		}
	}
	if !succeeded {
		if revision == 0 {
			fmt.Fprintln(os.Stderr, "kvcli: the condition was not met: there is no such key")
		} else {
			fmt.Fprintf(os.Stderr, "kvcli: the condition was not met: the key's revision is %d\n", revision)
		}
		return errNo
	}
	if c.output == "table" {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), "revision", revision)
		return err
	}
	return nil
}

func (c *cli) putCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "put KEY VALUE", Short: "Write a key", Args: cobra.ExactArgs(2),
		Long:    "Write a key. VALUE is the value, @FILE for what a file holds, or - for standard input.",
		Example: "  kvcli put hello world\n  kvcli put session/7 @session.json --ttl 30s\n  kvcli put lock me --if-absent",
	}
	ttl := cmd.Flags().Duration("ttl", 0, "time after which the key goes away")
	absent := cmd.Flags().Bool("if-absent", false, "only if the key is not there")
	revision := cmd.Flags().Uint64("if-revision", 0, "only if the key is there at this revision")
	cmd.MarkFlagsMutuallyExclusive("if-absent", "if-revision")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		key, err := kv.ParseKey(args[0])
		if err != nil {
			return err
		}
		v, err := value(cmd, args[1])
		if err != nil {
			return err
		}
		var options []client.WriteOption
		if cmd.Flags().Changed("ttl") {
			if *ttl < time.Millisecond {
				return usage("ttl", "at least 1ms")
			}
			options = append(options, client.TTL(*ttl))
		}
		if *absent {
			options = append(options, client.IfAbsent())
		}
		if cmd.Flags().Changed("if-revision") {
			options = append(options, client.IfRevision(kv.Revision(*revision)))
		}
		return c.with(cmd, true, func(ctx context.Context, cl *client.Client) error {
			r, err := cl.Put(ctx, key, v, options...)
			if err != nil {
				return err
			}
			return c.wrote(cmd, r.Succeeded, r.Revision)
		})
	}
	return cmd
}

func (c *cli) delCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "del KEY | del --prefix P | del --from A --to B", Short: "Remove a key, or all keys of a range", Args: cobra.MaximumNArgs(1),
		Example: "  kvcli del hello\n  kvcli del --prefix session/",
	}
	revision := cmd.Flags().Uint64("if-revision", 0, "only if the key is there at this revision")
	span := spanFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, given, err := span()
		if err != nil {
			return err
		}
		if given == (len(args) == 1) {
			return usage("del", "either KEY, or --prefix, or --from and --to")
		}
		if given && cmd.Flags().Changed("if-revision") {
			return usage("if-revision", "with KEY only")
		}
		if given {
			return c.delRange(cmd, s)
		}
		key, err := kv.ParseKey(args[0])
		if err != nil {
			return err
		}
		var options []client.WriteOption
		if cmd.Flags().Changed("if-revision") {
			options = append(options, client.IfRevision(kv.Revision(*revision)))
		}
		return c.with(cmd, true, func(ctx context.Context, cl *client.Client) error {
			r, err := cl.Delete(ctx, key, options...)
			if err != nil {
				return err
			}
			if r.Succeeded && !r.Found {
				fmt.Fprintln(os.Stderr, "kvcli: there is no key", args[0])
				return errNo
			}
			return c.wrote(cmd, r.Succeeded, r.Revision)
		})
	}
	return cmd
}

func (c *cli) delRange(cmd *cobra.Command, s kv.Span) error {
	return c.with(cmd, true, func(ctx context.Context, cl *client.Client) error {
		count, err := cl.DeleteRange(ctx, s)
		if err != nil {
			return fmt.Errorf("%w (deleted for certain: %d)", err, count)
		}
		if c.output == "json" {
			return c.json(cmd, map[string]any{"deleted": count})
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "deleted", count)
		return err
	})
}

func (c *cli) casCommand() *cobra.Command {
	return &cobra.Command{
		Use: "cas KEY OLD NEW", Short: "Write a key if it holds an old value", Example: "  kvcli cas state open closed", Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := kv.ParseKey(args[0])
			if err != nil {
				return err
			}
			old, err := value(cmd, args[1])
			if err != nil {
				return err
			}
			next, err := value(cmd, args[2])
			if err != nil {
				return err
			}
			return c.with(cmd, true, func(ctx context.Context, cl *client.Client) error {
				r, err := cl.Txn(ctx, &kvdv1.TxnRequest{
					Compare: []*kvdv1.Compare{{Key: key, Kind: &kvdv1.Compare_Value{Value: old}}},
					Then:    []*kvdv1.TxnOp{{Op: &kvdv1.TxnOp_Put{Put: &kvdv1.TxnPut{Key: key, Value: next}}}},
					Else:    []*kvdv1.TxnOp{{Op: &kvdv1.TxnOp_Get{Get: &kvdv1.TxnGet{Key: key}}}},
				})
				if err != nil {
					return err
				}
				revision := kv.Revision(0)
				if len(r.Results) > 0 {
					revision = kv.Revision(r.Results[0].Revision)
				}
				return c.wrote(cmd, r.Succeeded, revision)
			})
		},
	}
}

func (c *cli) incrCommand() *cobra.Command {
	return &cobra.Command{
		Use: "incr KEY [BY]", Short: "Add to a decimal counter and print its new value", Example: "  kvcli incr visits\n  kvcli incr stock -- -3", Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := kv.ParseKey(args[0])
			if err != nil {
				return err
			}
			by := int64(1)
			if len(args) == 2 {
				if by, err = strconv.ParseInt(args[1], 10, 64); err != nil {
					return usage("BY", "a number of 64 bits, is "+args[1])
				}
			}
			return c.with(cmd, true, func(ctx context.Context, cl *client.Client) error {
				v, revision, err := cl.Increment(ctx, key, by)
				if err != nil {
					return err
				}
				if c.output == "json" {
					return c.json(cmd, map[string]any{"value": v, "revision": uint64(revision)})
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), v)
				return err
			})
		},
	}
}

func (c *cli) txnCommand() *cobra.Command {
	return &cobra.Command{
		Use: "txn [FILE]", Short: "Compare, then do one of two lists, atomically", Args: cobra.MaximumNArgs(1),
		Long: `Compare, then do one of two lists of operations, atomically. FILE, or standard input, holds one JSON object:

  {"compare": [{"key": K, "absent": true | "present": true | "revision": N | "value": V}],
   "then":    [{"get": {"key": K}}, {"put": {"key": K, "value": V, "ttl_ms": N}}, {"delete": {"key": K}}],
   "else":    […]}

Keys are written as on the command line, values are text or {"base64": "…"}. All keys lie in one shard.
The answer is an object too, with a result for each operation that was done: of a get what was found, of a put the key's
revision, of a delete whether the key was there.
Exit code 0 if "then" was done, 1 if "else" was.`,
		Example: `  echo '{"compare":[{"key":"a","absent":true}],"then":[{"put":{"key":"a","value":"1"}}]}' | kvcli txn`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var in io.Reader = cmd.InOrStdin()
			if len(args) == 1 && args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			r, err := parseTxn(in)
			if err != nil {
				return err
			}
			return c.with(cmd, true, func(ctx context.Context, cl *client.Client) error {
				resp, err := cl.Txn(ctx, r)
				if err != nil {
					return err
				}
				if err := c.json(cmd, answerOf(r, resp)); err != nil {
					return err
				}
				if !resp.Succeeded {
					return errNo
				}
				return nil
			})
		},
	}
}

// txnAnswer is how a transaction ended, as JSON.
type txnAnswer struct {
	Succeeded bool        `json:"succeeded"`
	Revision  uint64      `json:"revision"`
	Results   []txnResult `json:"results"`
}

// txnResult is that of one operation. Only a get that found its key has a value.
type txnResult struct {
	Found    *bool   `json:"found,omitempty"`
	Value    *string `json:"value,omitempty"`
	ValueB64 []byte  `json:"value_base64,omitempty"`
	Revision uint64  `json:"revision,omitempty"`
	ExpireAt int64   `json:"expire_at_ms,omitempty"`
}

func answerOf(r *kvdv1.TxnRequest, resp *kvdv1.TxnResponse) txnAnswer {
	a := txnAnswer{Succeeded: resp.Succeeded, Revision: resp.Revision, Results: []txnResult{}}
	ops := r.Then
	if !resp.Succeeded {
		ops = r.Else
	}
	for i, x := range resp.Results {
		one := txnResult{Revision: x.Revision, ExpireAt: x.ExpireAtMs}
		if i >= len(ops) || ops[i].GetPut() == nil {
			one.Found = &x.Found
		}
		if i < len(ops) && ops[i].GetGet() != nil && x.Found {
			one.Value, one.ValueB64 = textOrBytes(x.Value)
		}
		a.Results = append(a.Results, one)
	}
	return a
}

// text is a value in JSON: a string, or {"base64": "…"}.
type text []byte

func (t *text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*t = text(s)
		return nil
	}
	var x struct {
		Base64 []byte `json:"base64"`
	}
	err := json.Unmarshal(b, &x)
	*t = x.Base64
	return err
}

// jsonKey is a key as on the command line.
type jsonKey []byte

func (k *jsonKey) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	key, err := kv.ParseKey(s)
	*k = key
	return err
}

type jsonOp struct {
	Get *struct {
		Key jsonKey `json:"key"`
	} `json:"get"`
	Put *struct {
		Key      jsonKey `json:"key"`
		Value    text    `json:"value"`
		TTL      int64   `json:"ttl_ms"`
		ExpireAt int64   `json:"expire_at_ms"`
	} `json:"put"`
	Delete *struct {
		Key jsonKey `json:"key"`
	} `json:"delete"`
}

func parseTxn(in io.Reader) (*kvdv1.TxnRequest, error) {
	var x struct {
		Compare []struct {
			Key      jsonKey `json:"key"`
			Absent   bool    `json:"absent"`
			Present  bool    `json:"present"`
			Revision *uint64 `json:"revision"`
			Value    *text   `json:"value"`
		} `json:"compare"`
		Then []jsonOp `json:"then"`
		Else []jsonOp `json:"else"`
	}
	d := json.NewDecoder(in)
	d.DisallowUnknownFields()
	if err := d.Decode(&x); err != nil {
		return nil, usage("txn", "one JSON object as the help describes it: "+err.Error())
	}
	r := &kvdv1.TxnRequest{}
	for i, p := range x.Compare {
		compare := &kvdv1.Compare{Key: p.Key}
		switch {
		case p.Absent:
			compare.Kind = &kvdv1.Compare_Absent{Absent: true}
		case p.Present:
			compare.Kind = &kvdv1.Compare_Present{Present: true}
		case p.Revision != nil:
			compare.Kind = &kvdv1.Compare_Revision{Revision: *p.Revision}
		case p.Value != nil:
			compare.Kind = &kvdv1.Compare_Value{Value: *p.Value}
		default:
			return nil, usage(fmt.Sprintf("compare[%d]", i), "absent, present, revision or value")
		}
		r.Compare = append(r.Compare, compare)
	}
	var err error
	if r.Then, err = txnOps("then", x.Then); err != nil {
		return nil, err
	}
	r.Else, err = txnOps("else", x.Else)
	return r, err
}

func txnOps(list string, ops []jsonOp) ([]*kvdv1.TxnOp, error) {
	var out []*kvdv1.TxnOp
	for i, o := range ops {
		switch {
		case o.Get != nil:
			out = append(out, &kvdv1.TxnOp{Op: &kvdv1.TxnOp_Get{Get: &kvdv1.TxnGet{Key: o.Get.Key}}})
		case o.Put != nil:
			out = append(out, &kvdv1.TxnOp{Op: &kvdv1.TxnOp_Put{Put: &kvdv1.TxnPut{
				Key: o.Put.Key, Value: o.Put.Value, TtlMs: o.Put.TTL, ExpireAtMs: o.Put.ExpireAt,
			}}})
		case o.Delete != nil:
			out = append(out, &kvdv1.TxnOp{Op: &kvdv1.TxnOp_Delete{Delete: &kvdv1.TxnDelete{Key: o.Delete.Key}}})
		default:
			return nil, usage(fmt.Sprintf("%s[%d]", list, i), "get, put or delete")
		}
	}
	return out, nil
}

// spanFlags adds --prefix, --from and --to; given tells whether any was used.
func spanFlags(cmd *cobra.Command) func() (span kv.Span, given bool, err error) {
	prefix := cmd.Flags().String("prefix", "", "keys that begin with this")
	from := cmd.Flags().String("from", "", "keys from this one on")
	to := cmd.Flags().String("to", "", "keys before this one")
	cmd.MarkFlagsMutuallyExclusive("prefix", "from")
	cmd.MarkFlagsMutuallyExclusive("prefix", "to")
	return func() (kv.Span, bool, error) {
		f := cmd.Flags()
		if f.Changed("prefix") {
			p, err := kv.ParseKey(*prefix)
			return kv.PrefixSpan(p), true, err
		}
		a, err := kv.ParseKey(*from)
		if err != nil {
			return kv.Span{}, false, err
		}
		b, err := kv.ParseKey(*to)
		return kv.Span{Start: a, End: b}, f.Changed("from") || f.Changed("to"), err
	}
}

func (c *cli) scanCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "scan", Short: "List keys in order", Args: cobra.NoArgs,
		Long:    "List keys in order: key, tab, value a line. With -o json an object a line, with -o raw the values unquoted.",
		Example: "  kvcli scan --prefix geo/u09t\n  kvcli scan --from a --to b --limit 10 --keys-only",
	}
	span := spanFlags(cmd)
	limit := cmd.Flags().Int("limit", 0, "at most so many keys; 0 is all")
	keysOnly := cmd.Flags().Bool("keys-only", false, "without values")
	count := cmd.Flags().Bool("count", false, "print only how many there are")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, _, err := span()
		if err != nil {
			return err
		}
		if *limit < 0 {
			return usage("limit", "at least 0")
		}
		if !cmd.Flags().Changed("timeout") {
			c.timeout = time.Hour
		}
		return c.with(cmd, true, func(ctx context.Context, cl *client.Client) error {
			out := bytes.NewBuffer(nil)
			n := 0
			for item, err := range cl.Scan(ctx, client.ScanOptions{Span: s, Limit: *limit, KeysOnly: *keysOnly || *count}) {
				if err != nil {
					return err
				}
				n++
				if *count {
					continue
				}
				out.Reset()
				if err := c.formatItem(out, item, *keysOnly); err != nil {
					return err
				}
				if _, err := cmd.OutOrStdout().Write(out.Bytes()); err != nil {
					return err
				}
			}
			if *count {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), n)
				return err
			}
			return nil
		})
	}
	return cmd
}

func (c *cli) formatItem(out *bytes.Buffer, item client.Item, keysOnly bool) error {
	if c.output == "json" {
		r := recordOf(item)
		if keysOnly {
			r.Value = nil
		}
		return json.NewEncoder(out).Encode(r)
	}
	out.WriteString(kv.FormatKey(item.Key))
	if !keysOnly {
		out.WriteByte('\t')
		if c.output == "raw" {
			out.Write(item.Record.Value)
		} else {
			out.WriteString(kv.FormatKey(item.Record.Value))
		}
	}
	out.WriteByte('\n')
	return nil
}
