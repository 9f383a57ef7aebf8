package load

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/kvdstore/kvd/kv"
)

// TraceMax bounds the lines of a trace.
const TraceMax = 50_000_000

// ReadTrace reads a file of accesses, one key a line, gzipped if its name ends in .gz. Equal keys share their bytes.
func ReadTrace(name string) (list [][]byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var in io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if in, err = gzip.NewReader(f); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	known := map[string][]byte{}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		key := known[string(lines.Bytes())]
		if key == nil {
			key = []byte(lines.Text())
			if err := kv.CheckKey(fmt.Sprintf("trace, line %d", len(list)+1), key); err != nil {
				return nil, err
			}
			known[string(key)] = key
		}
		if list = append(list, key); len(list) > TraceMax {
			return nil, &kv.InvalidError{Field: "trace", Bound: fmt.Sprintf("at most %d lines", TraceMax)}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return list, nil
}
