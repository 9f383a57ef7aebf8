package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/client"
	"github.com/kvdstore/kvd/kv"
)

const (
	// valueBytes is the length of a value.
	valueBytes = 100
	// paceEvery is the time between two looks at how many requests are due.
	paceEvery = 2 * time.Millisecond
	// shownMost bounds the errors that are told, and latenciesMax the latencies that are kept of a second.
	shownMost, latenciesMax = 10, 1 << 16
)

// load is some clients that send requests.
type load struct {
	rate    int
	clients []*client.Client
	what    atomic.Pointer[traffic]
	seed    uint64

	due chan time.Time // When requests should have been sent; at most a second's.

	mu        sync.Mutex // Guards the rest.
	served    map[uint64]int
	latencies []time.Duration
	waived    int // Requests that were not sent, because too many wait already.
	errors    int
	shown     []string
}

// second is what was done in a second.
type second struct {
	served      map[uint64]int // By node.
	all, waived int
	p50, p99    time.Duration
}

// newLoad makes clients of a cluster. Workers share some of them, as threads of a program do.
func newLoad(endpoints []string, rate int, seed uint64) (*load, error) {
	const programs = 4
	l := &load{rate: rate, seed: seed, due: make(chan time.Time, rate), served: map[uint64]int{}}
	for range programs {
		c, err := client.New(client.Config{
			Endpoints: endpoints, Connections: 1, DialOptions: []grpc.DialOption{grpc.WithUnaryInterceptor(l.count)},
		})
		if err != nil {
			l.close()
			return nil, err
		}
		l.clients = append(l.clients, c)
	}
	return l, nil
}

func (l *load) close() {
	for _, c := range l.clients {
		_ = c.Close()
	}
}

// count notes which node has served a request: its answer tells.
func (l *load) count(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, list ...grpc.CallOption) error {
	err := invoke(ctx, method, request, reply, conn, list...)
	if r, ok := reply.(interface{ GetHeader() *kvdv1.ResponseHeader }); ok && err == nil && r.GetHeader().GetNode() != 0 {
		l.mu.Lock()
		l.served[r.GetHeader().GetNode()]++
		l.mu.Unlock()
	}
	return err
}

// run sends requests until the context ends, and waits for those under way.
func (l *load) run(ctx context.Context, workers int) {
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() { l.work(l.clients[i%len(l.clients)], rand.New(rand.NewPCG(l.seed, uint64(i)))) })
	}
	l.pace(ctx)
	close(l.due)
	all.Wait()
}

// pace has requests sent at a steady rate, however long earlier ones take, until a second's worth waits.
func (l *load) pace(ctx context.Context) {
	ticker := time.NewTicker(paceEvery)
	defer ticker.Stop()
	began, n := time.Now(), 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for until := int(time.Since(began).Seconds() * float64(l.rate)); n < until; n++ {
			select {
			case l.due <- began.Add(time.Duration(n) * time.Second / time.Duration(l.rate)):
			default:
				l.mu.Lock()
				l.waived++
				l.mu.Unlock()
			}
		}
	}
}

// work sends what is due, one request at a time.
func (l *load) work(c *client.Client, rng *rand.Rand) {
	value := make([]byte, valueBytes)
	for due := range l.due {
		key, write := (*l.what.Load())(rng)
		var err error
		if write {
			for i := range value {
				value[i] = byte(rng.Uint32())
			}
			_, err = c.Put(context.Background(), key, value) // The client has a deadline of its own.
		} else {
			_, _, err = c.Get(context.Background(), key)
		}
		l.done(key, time.Since(due), err)
	}
}

func (l *load) done(key []byte, took time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.latencies) < latenciesMax {
		l.latencies = append(l.latencies, took)
	}
	if err == nil {
		return
	}
	if l.errors++; len(l.shown) < shownMost {
		l.shown = append(l.shown, fmt.Sprintf("%s after %v: %v", kv.FormatKey(key), took.Round(time.Millisecond), err))
	}
}

// take gives what was done since it was last called.
func (l *load) take() second {
	l.mu.Lock()
	s, list := second{served: l.served, waived: l.waived}, l.latencies
	l.served, l.latencies, l.waived = map[uint64]int{}, nil, 0
	l.mu.Unlock()
	for _, n := range s.served {
		s.all += n
	}
	if slices.Sort(list); len(list) > 0 {
		s.p50, s.p99 = list[len(list)/2], list[len(list)*99/100]
	}
	return s
}

// failed tells of the errors that clients got.
func (l *load) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.errors == 0 {
		return nil
	}
	return fmt.Errorf("%d errors reached clients, among them %q", l.errors, l.shown)
}
