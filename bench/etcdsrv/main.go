// Etcdsrv runs one member of an etcd cluster, by etcd's own embed package and with its defaults: every answer to a write
// waits for the same sync as kvd's. It is a module of its own, so that kvd does not depend on etcd's server; go.mod names the newest
// etcd, and etcd36.mod the one before: go build -modfile etcd36.mod, go mod tidy -modfile etcd36.mod.
//
//	etcdsrv --name e1 --dir DIR --client 127.0.0.1:2379 --peer 127.0.0.1:2380 --cluster e1=127.0.0.1:2380
package main

import (
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

const (
	// readyMax is how long the member may take until it serves.
	readyMax = time.Minute
	// quotaBytes is room for what a benchmark writes: nothing is compacted away meanwhile.
	quotaBytes = 8 << 30
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "etcdsrv:", err)
		os.Exit(1)
	}
}

func run() error {
	name := flag.String("name", "e1", "of this member")
	dir := flag.String("dir", "", "directory of its data")
	client := flag.String("client", "", "HOST:PORT for clients")
	peer := flag.String("peer", "", "HOST:PORT for the other members")
	cluster := flag.String("cluster", "", "all members: NAME=HOST:PORT of their peer addresses, with commas between them")
	flag.Parse()
	for _, f := range []struct{ name, value string }{{"dir", *dir}, {"client", *client}, {"peer", *peer}, {"cluster", *cluster}} {
		if f.value == "" {
			return fmt.Errorf("%s: at least 1 byte", f.name)
		}
	}
	e, err := embed.StartEtcd(config(*name, *dir, *client, *peer, *cluster))
	if err != nil {
		return err
	}
	defer e.Close()
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		return err
	case <-time.After(readyMax):
		return errors.New("the member did not become ready")
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	select {
	case <-stop:
		return nil
	case err := <-e.Err():
		return err
	}
}

func config(name, dir, client, peer, cluster string) *embed.Config {
	c := embed.NewConfig()
	c.Name, c.Dir = name, dir
	c.LogLevel = "warn"
	c.QuotaBackendBytes = quotaBytes
	clients, peers := []url.URL{{Scheme: "http", Host: client}}, []url.URL{{Scheme: "http", Host: peer}}
	c.ListenClientUrls, c.AdvertiseClientUrls = clients, clients
	c.ListenPeerUrls, c.AdvertisePeerUrls = peers, peers
	var list []string
	for member := range strings.SplitSeq(cluster, ",") {
		list = append(list, strings.Replace(member, "=", "=http://", 1))
	}
	c.InitialCluster = strings.Join(list, ",")
	return c
}
