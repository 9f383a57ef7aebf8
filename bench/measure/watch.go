package measure

import (
	"context"
	"errors"
	"time"
)

// syncsMetric is the counter of kvd's synced writes, in its /metrics.
const syncsMetric = "kvd_log_syncs_total"

// Process is what a server took during a run.
type Process struct {
	PID  int    `json:"pid"`
	Name string `json:"name"`
	// Cores is processor time by time.
	Cores float64 `json:"cores"`
	// ResidentMax is the most memory that was seen, in bytes.
	ResidentMax uint64 `json:"resident_max"`
	// Written are bytes that went to the storage layer; nil where nobody tells.
	Written *uint64 `json:"written,omitempty"`
}

// Watch follows some processes from a moment on.
type Watch struct {
	pids  []int
	urls  []string
	began time.Time
	first []Usage
	most  []uint64
	syncs *float64
}

// NewWatch begins to follow processes, and asks the /metrics at some URLs how many syncs there were.
func NewWatch(ctx context.Context, pids []int, urls []string) (*Watch, error) {
	w := &Watch{pids: pids, urls: urls, began: time.Now(), syncs: syncs(ctx, urls)}
	for _, pid := range pids {
		u, err := UsageOf(pid)
		if err != nil {
			return nil, err
		}
		w.first = append(w.first, u)
		w.most = append(w.most, u.Resident)
	}
	return w, nil
}

// Look notes how much memory is in use now; a process that ended is left out.
func (w *Watch) Look() {
	for i, pid := range w.pids {
		if u, err := UsageOf(pid); err == nil {
			w.most[i] = max(w.most[i], u.Resident)
		}
	}
}

// End gives what the processes took, and syncs a second of all together; nil where nobody tells.
func (w *Watch) End(ctx context.Context) (list []Process, syncsPerSecond *float64, err error) {
	seconds := time.Since(w.began).Seconds()
	w.Look()
	var errs []error
	for i, pid := range w.pids {
		u, err := UsageOf(pid)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p := Process{PID: pid, Name: u.Name, Cores: (u.CPU - w.first[i].CPU).Seconds() / seconds, ResidentMax: w.most[i]}
		if u.Written != nil && w.first[i].Written != nil {
			n := *u.Written - *w.first[i].Written
			p.Written = &n
		}
		list = append(list, p)
	}
	if now := syncs(ctx, w.urls); now != nil && w.syncs != nil {
		n := (*now - *w.syncs) / seconds
		syncsPerSecond = &n
	}
	return list, syncsPerSecond, errors.Join(errs...)
}

// syncs adds up the syncs of all nodes; nil unless all of them tell.
func syncs(ctx context.Context, urls []string) *float64 {
	if len(urls) == 0 {
		return nil
	}
	sum := 0.0
	for _, url := range urls {
		m, err := Scrape(ctx, url)
		if err != nil {
			return nil
		}
		n, err := m.Value(syncsMetric)
		if err != nil {
			return nil
		}
		sum += n
	}
	return &sum
}
