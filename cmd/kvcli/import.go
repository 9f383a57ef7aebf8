package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/geo"
	"github.com/kvdstore/kvd/kv"
)

const (
	// importTimeout is the default of --timeout for import.
	importTimeout = 5 * time.Minute
	// lineBytesMax bounds a line of a file: a value in base64 and more.
	lineBytesMax = 4 << 20
	// refusedShown is how many refused lines are told of one by one.
	refusedShown = 20
	// geoPrefix and geoChars are where import --geo writes.
	geoPrefix = "geo/"
	geoChars  = 9
	// repeatPause is before a write whose end is not known is repeated.
	repeatPause = 20 * time.Millisecond
)

func (c *cli) importCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Write what a file holds", Args: cobra.ExactArgs(1),
		Long: `Write what a file holds, of which each line is KEY, tab, VALUE, or an object {"key": K, "value": V}; the file may be
compressed with gzip, and - is standard input. With --geo the lines are id, name, country, latitude, longitude and
population of places, with tabs between; each is written as JSON under geo/<geohash of 9>/<id>.

A write that was not done, or whose end is not known, is repeated until it is known: the same value may be put twice.
Lines that are refused are named. Exit code 0 only if every line was written.`,
		Example: "  kvcli import data.tsv\n  kvcli import --geo cities.tsv.gz --stats",
	}
	places := cmd.Flags().Bool("geo", false, "the file holds places")
	stats := cmd.Flags().Bool("stats", false, "print rate and latencies at the end")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed("timeout") {
			c.timeout = importTimeout
		}
		in, err := openFile(cmd, args[0])
		if err != nil {
			return err
		}
		defer in.Close()
		parse := parseLine
		if *places {
			parse = parsePlace
		}
		return c.with(cmd, false, func(ctx context.Context, cl *client.Client) error {
			i := newImporter(ctx, cl)
			return i.run(in, parse, *stats)
		})
	}
	return cmd
}

// openFile opens a file, compressed or not.
func openFile(cmd *cobra.Command, name string) (io.ReadCloser, error) {
	var in io.ReadCloser = io.NopCloser(cmd.InOrStdin())
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		in = f
	}
	buffered := bufio.NewReaderSize(in, 1<<20)
	magic, _ := buffered.Peek(2)
	if !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return &reading{buffered, in}, nil
	}
	zip, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return &reading{zip, in}, nil
}

type reading struct {
	io.Reader
	io.Closer
}

// parseLine reads KEY, tab, VALUE, or a JSON object.
func parseLine(line []byte) (key, value []byte, err error) {
	if line[0] == '{' {
		var x struct {
			Key      string `json:"key"`
			Value    *text  `json:"value"`
			ValueB64 []byte `json:"value_base64"`
		}
		if err := json.Unmarshal(line, &x); err != nil {
			return nil, nil, usage("line", "an object with key and value: "+err.Error())
		}
		if key, err = kv.ParseKey(x.Key); err != nil {
			return nil, nil, err
		}
		if x.Value != nil {
			return key, *x.Value, nil
		}
		if x.ValueB64 == nil {
			return nil, nil, usage("line", "an object with key and value")
		}
		return key, x.ValueB64, nil
	}
	k, v, ok := bytes.Cut(line, []byte{'\t'})
	if !ok {
		return nil, nil, usage("line", "KEY, tab, VALUE")
	}
	key, err = kv.ParseKey(string(k))
	return key, bytes.Clone(v), err
}

// place is what is written of one.
type place struct {
	Name       string  `json:"name"`
	Country    string  `json:"country"`
	Lat        float64 `json:"lat"`
	Lon        float64 `json:"lon"`
	Population int64   `json:"population"`
}

func parsePlace(line []byte) (key, value []byte, err error) {
	fields := strings.Split(string(line), "\t")
	if len(fields) != 6 {
		return nil, nil, usage("line", fmt.Sprintf("id, name, country, latitude, longitude, population; has %d fields", len(fields)))
	}
	lat, err := strconv.ParseFloat(fields[3], 64)
	if err != nil {
		return nil, nil, usage("latitude", "a number, is "+fields[3])
	}
	lon, err := strconv.ParseFloat(fields[4], 64)
	if err != nil {
		return nil, nil, usage("longitude", "a number, is "+fields[4])
	}
	population, err := strconv.ParseInt(fields[5], 10, 64)
	if err != nil {
		return nil, nil, usage("population", "a number, is "+fields[5])
	}
	if err := geo.CheckKey(geoPrefix, lat, lon, geoChars, fields[0]); err != nil {
		return nil, nil, err
	}
	value, err = json.Marshal(place{fields[1], fields[2], lat, lon, population})
	return geo.Key(geoPrefix, lat, lon, geoChars, fields[0]), value, err
}

// importer writes lines through a pipeline.
type importer struct {
	ctx      context.Context
	pipeline *client.Pipeline
	began    time.Time
	unit     string // What is written: a line, or a key.

	written, refused, unknown, repeats atomic.Int64
	wait                               sync.WaitGroup

	mu        sync.Mutex
	latencies *hdrhistogram.Histogram
	longest   time.Duration
	shown     int
}

func newImporter(ctx context.Context, cl *client.Client) *importer {
	return &importer{ctx: ctx, pipeline: cl.Pipeline(), began: time.Now(), unit: "line", latencies: hdrhistogram.New(1, int64(time.Hour/time.Microsecond), 3)}
}

func (i *importer) run(in io.Reader, parse func([]byte) (key, value []byte, err error), stats bool) error {
	stop := i.progress()
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), lineBytesMax)
	number := 0
	for lines.Scan() && i.ctx.Err() == nil {
		number++
		line := bytes.TrimSuffix(lines.Bytes(), []byte{'\r'})
		if len(line) == 0 {
			continue
		}
		key, value, err := parse(line)
		if err == nil {
			err = errors.Join(kv.CheckKey("key", key), kv.CheckValue("value", value))
		}
		if err != nil {
			i.refuse(number, err)
			continue
		}
		i.wait.Add(1)
		i.put(number, key, value, time.Now())
	}
	err := lines.Err()
	if err != nil {
		err = usage(fmt.Sprintf("line %d", number+1), "readable and of at most 4 MiB: "+err.Error())
	}
	left := i.ctx.Err() != nil
	i.wait.Wait()
	stop()
	fmt.Fprintf(os.Stderr, "kvcli: %d written, %d refused, %d unknown, in %v\n", i.written.Load(), i.refused.Load(), i.unknown.Load(), time.Since(i.began).Round(time.Millisecond))
	if stats {
		i.print()
	}
	if err != nil {
		return err
	}
	late := ""
	if left {
		late = "--timeout came before the end of the file"
	}
	return i.ended(late)
}

// ended tells how everything ended: late is what was not begun, empty if everything was.
func (i *importer) ended(late string) error {
	switch {
	case i.unknown.Load() > 0:
		return fmt.Errorf("%d writes are unknown at the end of --timeout%w", i.unknown.Load(), quiet{client.ErrUnknown})
	case late != "":
		return fmt.Errorf("%s%w", late, quiet{client.ErrNotDone})
	case i.refused.Load() > 0:
		return usage("import", fmt.Sprintf("%d %ss were refused", i.refused.Load(), i.unit))
	}
	return nil
}

// put writes a line, and again until it is known how that ended.
func (i *importer) put(number int, key, value []byte, began time.Time, options ...client.WriteOption) {
	i.pipeline.GoPut(i.ctx, key, value, func(_ client.PutResult, err error) {
		switch {
		case err == nil:
			i.written.Add(1)
			i.took(time.Since(began))
			i.wait.Done()
		case errors.As(err, new(*kv.InvalidError)):
			i.refuse(number, err)
			i.wait.Done()
		case i.ctx.Err() != nil:
			i.unknown.Add(1)
			i.wait.Done()
		default:
			i.repeats.Add(1)
			time.AfterFunc(repeatPause, func() { i.put(number, key, value, began, options...) })
		}
	}, options...)
}

func (i *importer) took(d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	_ = i.latencies.RecordValue(max(d.Microseconds(), 1))
	i.longest = max(i.longest, d)
}

func (i *importer) refuse(number int, err error) {
	i.refused.Add(1)
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.shown++; i.shown <= refusedShown {
		fmt.Fprintf(os.Stderr, "kvcli: %s %d: %v\n", i.unit, number, err)
	}
}

func (i *importer) print() {
	i.mu.Lock()
	defer i.mu.Unlock()
	at := func(q float64) time.Duration {
		return time.Duration(i.latencies.ValueAtQuantile(q)) * time.Microsecond
	}
	fmt.Fprintf(os.Stderr, "kvcli: %.0f writes/s, p50 %v, p99 %v, longest wait %v, repeated %d\n",
		float64(i.written.Load())/time.Since(i.began).Seconds(), at(50), at(99), i.longest.Round(time.Microsecond), i.repeats.Load())
}

// progress draws how far it is, if standard error is a terminal.
func (i *importer) progress() (stop func()) {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
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
				fmt.Fprintf(os.Stderr, "\r\x1b[K%d written, %.0f/s", i.written.Load(), float64(i.written.Load())/time.Since(i.began).Seconds())
			}
		}
	}()
	return func() { close(done); <-ended }
}

func (c *cli) exportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "export FILE", Short: "Write all keys to a file that import reads", Args: cobra.ExactArgs(1),
		Long:    "Write all keys, or those of a range, as an object a line. A FILE that ends with .gz is compressed; - is standard output. Expiries are shown, and not taken by import.",
		Example: "  kvcli export all.ndjson.gz\n  kvcli export --prefix geo/u - | head",
	}
	span := spanFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, _, err := span()
		if err != nil {
			return err
		}
		if !cmd.Flags().Changed("timeout") {
			c.timeout = time.Hour
		}
		return c.with(cmd, true, func(ctx context.Context, cl *client.Client) (err error) {
			var out io.Writer = cmd.OutOrStdout()
			if args[0] != "-" {
				f, failed := os.Create(args[0])
				if failed != nil {
					return failed
				}
				defer func() { err = errors.Join(err, f.Sync(), f.Close()) }()
				out = f
			}
			if strings.HasSuffix(args[0], ".gz") {
				zip := gzip.NewWriter(out)
				defer func() { err = errors.Join(err, zip.Close()) }()
				out = zip
			}
			buffered := bufio.NewWriterSize(out, 1<<20)
			encoder := json.NewEncoder(buffered)
			n := 0
			for item, err := range cl.Scan(ctx, client.ScanOptions{Span: s}) {
				if err == nil {
					n++
					err = encoder.Encode(recordOf(item))
				}
				if err != nil {
					return err
				}
			}
			fmt.Fprintf(os.Stderr, "kvcli: %d exported\n", n)
			return buffered.Flush()
		})
	}
	return cmd
}
