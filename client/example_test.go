package client_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/internal/test"
	"github.com/kvdstore/kvd/kv"
)

// endpoint is that of a kvd: "127.0.0.1:7400" if one runs with its defaults.
var endpoint string

func TestMain(m *testing.M) { os.Exit(withNode(m.Run)) }

// withNode runs f beside a node for the examples.
func withNode(f func() int) int {
	t := &exampleTB{}
	defer t.end()
	cluster := test.New(t, 1)
	cluster.StartAll()
	endpoint = cluster.Addresses()[0]
	return f()
}

// exampleTB is what internal/test needs of a test.
type exampleTB struct {
	testing.TB
	cleanups []func()
}

func (t *exampleTB) end() {
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
}

func (*exampleTB) Helper()                           {}
func (t *exampleTB) Cleanup(f func())                { t.cleanups = append(t.cleanups, f) }
func (*exampleTB) Errorf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (*exampleTB) FailNow()                          { os.Exit(1) }

func (t *exampleTB) TempDir() string {
	dir, err := os.MkdirTemp("", "kvd-example")
	if err != nil {
		t.Errorf("%v", err)
		t.FailNow()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func ExampleClient() {
	c, err := client.New(client.Config{Endpoints: []string{endpoint}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = c.Put(ctx, []byte("session/7"), []byte("open"), client.TTL(time.Minute), client.IfAbsent())
	switch {
	case errors.Is(err, client.ErrNotDone):
		fmt.Println("nothing was or will be written:", err)
	case errors.Is(err, client.ErrUnknown):
		fmt.Println("it may have been written:", err)
	}
	item, found, err := c.Get(ctx, []byte("session/7"))
	fmt.Println(string(item.Record.Value), found, err)
	// Output: open true <nil>
}

func ExampleClient_Scan() {
	c, err := client.New(client.Config{Endpoints: []string{endpoint}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, city := range []string{"u09t/paris", "u0nd/basel", "u09v/meaux"} {
		if _, err := c.Put(ctx, []byte("city/"+city), []byte(city[5:])); err != nil {
			fmt.Println(err)
			return
		}
	}
	for item, err := range c.Scan(ctx, client.ScanOptions{Span: kv.PrefixSpan([]byte("city/u09"))}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s %s\n", item.Key, item.Record.Value)
	}
	// Output:
	// city/u09t/paris paris
	// city/u09v/meaux meaux
}

func ExampleClient_Txn() {
	c, err := client.New(client.Config{Endpoints: []string{endpoint}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	// Whoever comes first takes the lock.
	for _, who := range []string{"ada", "grace"} {
		resp, err := c.Txn(ctx, &kvdv1.TxnRequest{
			Compare: []*kvdv1.Compare{{Key: []byte("lock"), Kind: &kvdv1.Compare_Absent{Absent: true}}},
			Then:    []*kvdv1.TxnOp{{Op: &kvdv1.TxnOp_Put{Put: &kvdv1.TxnPut{Key: []byte("lock"), Value: []byte(who)}}}},
			Else:    []*kvdv1.TxnOp{{Op: &kvdv1.TxnOp_Get{Get: &kvdv1.TxnGet{Key: []byte("lock")}}}},
		})
		switch {
		case err != nil:
			fmt.Println(err)
		case resp.Succeeded:
			fmt.Println(who, "has it")
		default:
			fmt.Println(who, "does not:", string(resp.Results[0].Value), "has it")
		}
	}
	// Output:
	// ada has it
	// grace does not: ada has it
}

func ExamplePipeline() {
	c, err := client.New(client.Config{Endpoints: []string{endpoint}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	p := c.Pipeline()
	var wait sync.WaitGroup
	for range 1000 {
		wait.Add(1)
		p.GoIncrement(ctx, []byte("visits"), 1, func(_ int64, err error) {
			defer wait.Done()
			if err != nil {
				fmt.Println(err)
			}
		})
	}
	wait.Wait()
	item, _, err := p.Get(ctx, []byte("visits"))
	fmt.Println(string(item.Record.Value), err)
	// Output: 1000 <nil>
}
