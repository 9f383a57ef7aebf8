package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Names that this package gives to what outlives a process: they hold its pid, so that the next start finds what a crash left.
const (
	namespacePrefix = "kvdjep-"
	bridgePrefix    = "kj"
	groupPrefix     = "kvdjep-"
	namespaceDir    = "/run/netns"
)

// The ports are the same in every namespace.
const (
	nodePort  = 7400
	httpPort  = 7480
	proxyPort = 7499
	// hostNumber is this program's last part of the address on the bridge.
	hostNumber = 254
)

// networks counts those of this process.
var networks atomic.Int64

// Available tells why namespaces cannot be had here; nil if they can. As root it installs what is missing of Debian's
// packages.
func Available(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces: only root may make them")
	}
	for _, t := range []struct{ program, of string }{{"ip", "iproute2"}, {"iptables-restore", "iptables"}} {
		if _, err := exec.LookPath(t.program); err == nil {
			continue
		}
		if out, err := exec.CommandContext(ctx, "apt-get", "install", "-y", "--no-install-recommends", t.of).CombinedOutput(); err != nil {
			return fmt.Errorf("network namespaces: %s is missing and cannot be installed: %w\n%s", t.program, err, out)
		}
	}
	name := fmt.Sprintf("%s%d-%d-try", namespacePrefix, os.Getpid(), networks.Add(1))
	err := ip("netns", "add", name)
	if err == nil {
		err = errors.Join(filter(name, "*filter\n-A INPUT -s 10.0.0.1/32 -j DROP\nCOMMIT\n"), ip("netns", "del", name))
	}
	if err != nil {
		return fmt.Errorf("network namespaces: %w", err)
	}
	return nil
}

func ip(args ...string) error { return command("", "ip", args...) }

func command(input, name string, args ...string) error {
	c := exec.Command(name, args...)
	c.Stdin = strings.NewReader(input)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for this program alone, which has to clean up.
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// filter replaces all packet filters of a namespace.
func filter(namespace, rules string) error {
	return command(rules, "ip", "netns", "exec", namespace, "iptables-restore", "-w")
}

// unknownFilter is what is noted of a node whose filters could not be replaced: the next ones are, whatever they are.
const unknownFilter = "?"

// bridged has each node in a namespace.
type bridged struct {
	id      string // PID and a number, in all names.
	subnet  string // Its first three numbers.
	proxied bool
	links   *links

	mu      sync.Mutex
	nodes   []string          // By the last number of their addresses, from 1.
	filters map[string]string // By node: the rules that are in place, or unknownFilter.
	filter  func(namespace, rules string) error
	proxies []*proxy
}

func newBridged(l *links, proxied bool) (*bridged, error) {
	id := fmt.Sprintf("%d", os.Getpid())
	b := &bridged{id: fmt.Sprintf("%s-%d", id, networks.Add(1)), proxied: proxied, links: l, filters: map[string]string{}, filter: filter}
	var err error
	if b.subnet, err = freeSubnet(os.Getpid()); err != nil {
		return nil, err
	}
	err = ip("link", "add", b.bridge(), "type", "bridge")
	if err == nil {
		err = ip("addr", "add", b.address(hostNumber)+"/24", "dev", b.bridge())
	}
	if err == nil {
		err = ip("link", "set", b.bridge(), "up")
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// freeSubnet gives a network of 256 addresses that this machine is not in.
func freeSubnet(start int) (string, error) {
	const networks = 128 * 256
	there, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	for i := range networks {
		n := (start + i) % networks
		first := net.IPv4(10, byte(64+n/256), byte(n%256), 0)
		taken := false
		for _, a := range there {
			of, ok := a.(*net.IPNet)
			taken = taken || ok && (of.Contains(first) || (&net.IPNet{IP: first, Mask: net.CIDRMask(24, 32)}).Contains(of.IP))
		}
		if !taken {
			return fmt.Sprintf("10.%d.%d", 64+n/256, n%256), nil
		}
	}
	return "", errors.New("no network in 10.64.0.0/10 and above is free")
}

func (b *bridged) address(n int) string         { return fmt.Sprintf("%s.%d", b.subnet, n) }
func (b *bridged) bridge() string               { return bridgePrefix + strings.Replace(b.id, "-", "x", 1) }
func (b *bridged) namespace(node string) string { return namespacePrefix + b.id + "-" + node }

// number of a node, from 1; 0 if there is none.
func (b *bridged) number(node string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, n := range b.nodes {
		if n == node {
			return i + 1
		}
	}
	return 0
}

func (b *bridged) add(node string) (place, error) {
	b.mu.Lock()
	b.nodes = append(b.nodes, node)
	n := len(b.nodes)
	b.mu.Unlock()
	namespace, port := b.namespace(node), fmt.Sprintf("%sn%d", b.bridge(), n)
	for _, args := range [][]string{
		{"netns", "add", namespace},
		{"link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace},
		{"link", "set", port, "master", b.bridge(), "up"},
		{"-n", namespace, "addr", "add", b.address(n) + "/24", "dev", "eth0"},
		{"-n", namespace, "link", "set", "eth0", "up"},
		{"-n", namespace, "link", "set", "lo", "up"},
	} {
		if err := ip(args...); err != nil {
			return place{}, err
		}
	}
	w := place{listen: fmt.Sprintf("%s:%d", b.address(n), nodePort), http: fmt.Sprintf("%s:%d", b.address(n), httpPort)}
	w.advertise = w.listen
	if !b.proxied {
		return w, nil
	}
	w.proxy = fmt.Sprintf("127.0.0.1:%d", proxyPort)
	var lis net.Listener
	err := within(namespace, func() (err error) {
		lis, err = net.Listen("tcp4", w.proxy)
		return err
	})
	if err != nil {
		return place{}, err
	}
	// What is cut is cut for packets; the proxy only slows.
	p := &proxy{caller: node, links: b.links, target: b.target, dial: func(ctx context.Context, address string) (conn net.Conn, err error) {
		err = errors.Join(within(namespace, func() (err error) {
			conn, err = (&net.Dialer{}).DialContext(ctx, "tcp4", address)
			return err
		}))
		return conn, err
	}}
	p.start(lis)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.proxies = append(b.proxies, p)
	return w, nil
}

func (b *bridged) target(address string) (name, at string, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, n := range b.nodes {
		if address == fmt.Sprintf("%s:%d", b.address(i+1), nodePort) {
			return n, address, true
		}
	}
	return "", "", false
}

// within runs f in a namespace, in a thread of its own. What f opens stays there.
func within(namespace string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // A thread that does not come back ends with its goroutine.
		undo, err := enter(namespace)
		if err == nil {
			err = f()
			if undo() {
				runtime.UnlockOSThread()
			}
		}
		done <- err
	}()
	return <-done
}

// enter moves the calling thread into a namespace; undo moves it back, and tells whether it could.
func enter(namespace string) (undo func() bool, err error) {
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	there, err := os.Open(filepath.Join(namespaceDir, namespace))
	if err != nil {
		return nil, errors.Join(err, own.Close())
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, errors.Join(fmt.Errorf("enter namespace %s: %w", namespace, err), own.Close())
	}
	return func() bool {
		defer own.Close()
		return unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil
	}, nil
}

// cut puts the filters in place: packets are lost on arrival, but those for clients before they leave.
func (b *bridged) cut(list []Link) error {
	rules := map[string]string{}
	for _, k := range list {
		switch from, to := b.number(k.From), b.number(k.To); {
		case to > 0 && k.From == Clients:
			rules[k.To] += fmt.Sprintf("-A INPUT -s %s/32 -j DROP\n", b.address(hostNumber))
		case from > 0 && k.To == Clients:
			rules[k.From] += fmt.Sprintf("-A OUTPUT -d %s/32 -j DROP\n", b.address(hostNumber))
		case from > 0 && to > 0:
			rules[k.To] += fmt.Sprintf("-A INPUT -s %s/32 -j DROP\n", b.address(from))
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var all sync.WaitGroup
	errs := make([]error, len(b.nodes))
	for i, node := range b.nodes {
		if rules[node] == b.filters[node] {
			continue
		}
		all.Go(func() { errs[i] = b.filter(b.namespace(node), "*filter\n"+rules[node]+"COMMIT\n") })
	}
	all.Wait()
	for i, node := range b.nodes {
		if b.filters[node] = rules[node]; errs[i] != nil {
			b.filters[node] = unknownFilter
		}
	}
	return errors.Join(errs...)
}

func (b *bridged) prepare(node string, _ *exec.Cmd) (func(), error) {
	undo, err := enter(b.namespace(node))
	if err != nil {
		return nil, err
	}
	return func() {
		if !undo() {
			panic("jepsen/cluster: the thread that starts processes cannot leave a namespace")
		}
	}, nil
}

func (b *bridged) dial(ctx context.Context, address string) (net.Conn, error) {
	return dialTCP(ctx, address)
}

func (b *bridged) close() error {
	b.mu.Lock()
	nodes, proxies := b.nodes, b.proxies
	b.nodes, b.proxies = nil, nil
	b.mu.Unlock()
	for _, p := range proxies {
		p.close()
	}
	var errs []error
	for _, n := range nodes {
		if _, err := os.Stat(filepath.Join(namespaceDir, b.namespace(n))); err == nil {
			errs = append(errs, ip("netns", "del", b.namespace(n)))
		}
	}
	if _, err := os.Stat("/sys/class/net/" + b.bridge()); err == nil {
		errs = append(errs, ip("link", "del", b.bridge()))
	}
	return errors.Join(errs...)
}

var (
	namespaceName = regexp.MustCompile(`^` + namespacePrefix + `(\d+)-\d+-\w+$`)
	bridgeName    = regexp.MustCompile(`^` + bridgePrefix + `(\d+)x\d+$`)
	groupName     = regexp.MustCompile(`^` + groupPrefix + `(\d+)-\d+$`)
)

// Clean removes what processes that are dead have left: namespaces with all that runs in them, bridges and cgroups. It
// gives their names.
func Clean() (removed []string, err error) {
	var errs []error
	done := func(name string, err error) {
		errs = append(errs, err)
		if err == nil {
			removed = append(removed, name)
		}
	}
	for _, name := range left(namespaceDir, namespaceName) {
		done(name, errors.Join(killAll(name), ip("netns", "del", name)))
	}
	for _, name := range left("/sys/class/net", bridgeName) {
		done(name, ip("link", "del", name))
	}
	for _, name := range left(memoryDir, groupName) {
		done(name, removeGroups(name))
	}
	for _, name := range left(cpuDir, groupName) {
		done(name, removeGroups(name))
	}
	return removed, errors.Join(errs...)
}

// left gives the entries of a directory that are named for a process that is dead.
func left(dir string, named *regexp.Regexp) (list []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // There are none where there is no directory.
	}
	for _, e := range entries {
		m := named.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		if pid, err := strconv.Atoi(m[1]); err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			list = append(list, e.Name())
		}
	}
	return list
}

// killAll ends what runs in a namespace.
func killAll(namespace string) error {
	out, err := exec.Command("ip", "netns", "pids", namespace).Output()
	if err != nil {
		return fmt.Errorf("ip netns pids %s: %w", namespace, err)
	}
	for _, field := range strings.Fields(string(out)) {
		if pid, err := strconv.Atoi(field); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL) // It may have ended meanwhile.
		}
	}
	return nil
}
