package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime/debug"

	"github.com/spf13/pflag"

	"github.com/kvdstore/kvd/bench/echo"
	"github.com/kvdstore/kvd/kv"
)

// echoCommand serves until the context ends.
func echoCommand(ctx context.Context, args []string, out io.Writer) error {
	f := pflag.NewFlagSet("bench echo", pflag.ContinueOnError)
	listen := f.String("listen", "127.0.0.1:7500", "HOST:PORT")
	percent := f.Int("gogc", 300, "of the collector, as kvd has it, 10 to 10000")
	if err := f.Parse(args); err != nil {
		return err
	}
	if err := noMore(f.Args()); err != nil {
		return err
	}
	if *percent < 10 || *percent > 10_000 {
		return &kv.InvalidError{Field: "gogc", Bound: fmt.Sprintf("10 to 10000, is %d", *percent)}
	}
	debug.SetGCPercent(*percent)
	lis, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	s := echo.New()
	defer context.AfterFunc(ctx, s.Stop)()
	_, _ = fmt.Fprintln(out, "serving at", lis.Addr())
	return s.Serve(lis)
}
