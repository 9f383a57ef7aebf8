package workload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/check"
	"github.com/kvdstore/kvd/kv"
)

const (
	// accountsOfGroup begin with openingBalance each; transferMax is the most that is moved at once.
	accountsOfGroup = 5
	openingBalance  = 1000
	transferMax     = 50
)

// bank moves money between the accounts of a group, in transactions that compare the revisions of both. The accounts of a
// group lie in one shard, until a split goes through the middle: then a transaction over both sides is refused, and is
// recorded as failed.
type bank struct {
	run    *Run
	groups *pool
	open   sync.Map // The groups whose accounts were opened.
}

func newBank(r *Run) driver {
	return &bank{run: r, groups: newPool(r.Prefix, groupsInUse, groupUsesMax)}
}

func (d *bank) setup(ctx context.Context) error {
	groups := d.groups.all()
	return d.run.each(ctx, len(groups), func(ctx context.Context, t *thread, i int) error { return d.opened(ctx, t, groups[i]) })
}

func (d *bank) step(ctx context.Context, t *thread) {
	group, _ := d.groups.pick(t.rng)
	if _, open := d.open.Load(group); !open {
		_ = d.opened(ctx, t, group)
		return
	}
	if t.rng.IntN(2) == 0 {
		_, err := t.balances(ctx, check.BankAsked{Keys: accounts(group), Total: accountsOfGroup * openingBalance})
		d.groups.judge(group, err)
		return
	}
	d.groups.judge(group, d.transfer(ctx, t, group))
}

func accounts(group string) []string {
	var keys []string
	for i := range accountsOfGroup {
		keys = append(keys, member(group, i))
	}
	return keys
}

// opened opens the accounts of a group, all at once or none; none if they lie in two shards.
func (d *bank) opened(ctx context.Context, t *thread, group string) error {
	asked := check.BankAsked{Keys: accounts(group), Expect: make([]kv.Revision, accountsOfGroup)}
	for range asked.Keys {
		asked.Values = append(asked.Values, strconv.Itoa(openingBalance))
	}
	err := t.setBalances(ctx, asked)
	if err == nil || errors.Is(err, errConditions) { // Another has opened them.
		d.open.Store(group, true)
		return nil
	}
	if separated(err) {
		d.groups.retire(group)
		return nil
	}
	return err
}

// transfer reads two accounts, and moves some money if they have not changed since.
func (d *bank) transfer(ctx context.Context, t *thread, group string) error {
	keys := accounts(group)
	t.rng.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	was, err := t.balances(ctx, check.BankAsked{Keys: keys[:2]})
	if err != nil {
		return err
	}
	from, _ := strconv.ParseInt(was.Values[0], 10, 64) // What is no number, Sums will find.
	to, _ := strconv.ParseInt(was.Values[1], 10, 64)
	amount := min(1+t.rng.Int64N(transferMax), from)
	if amount <= 0 {
		return nil
	}
	return t.setBalances(ctx, check.BankAsked{
		Keys: keys[:2], Expect: was.Revisions, Values: []string{strconv.FormatInt(from-amount, 10), strconv.FormatInt(to+amount, 10)},
	})
}

// balances reads accounts in one transaction.
func (t *thread) balances(ctx context.Context, asked check.BankAsked) (told check.BankTold, err error) {
	r := &kvdv1.TxnRequest{}
	for _, key := range asked.Keys {
		r.Then = append(r.Then, getOf(key))
	}
	err = t.read(ctx, check.BankReadName, &asked, func(ctx context.Context) (any, error) {
		resp, err := t.client.Txn(ctx, r)
		if err == nil {
			told, err = balancesOf(resp, len(asked.Keys))
		}
		return told, err
	})
	return told, err
}

// balancesOf are what a transaction on so many accounts tells.
func balancesOf(resp *kvdv1.TxnResponse, accounts int) (told check.BankTold, err error) {
	if n := len(resp.GetResults()); n != accounts {
		return told, fmt.Errorf("a transaction on %d accounts has %d results", accounts, n)
	}
	for _, x := range resp.GetResults() {
		told.Values = append(told.Values, string(x.GetValue()))
		told.Revisions = append(told.Revisions, kv.Revision(x.GetRevision()))
	}
	return told, nil
}

// setBalances writes accounts in one transaction, if they have the revisions that are expected.
func (t *thread) setBalances(ctx context.Context, asked check.BankAsked) error {
	r := &kvdv1.TxnRequest{}
	for i, key := range asked.Keys {
		r.Compare = append(r.Compare, unchanged(key, asked.Expect[i]))
		r.Then = append(r.Then, putOf(key, asked.Values[i]))
	}
	return t.write(ctx, check.BankWriteName, &asked, func(ctx context.Context) (any, error) {
		resp, err := t.client.Txn(ctx, r)
		switch {
		case err != nil:
			return nil, err
		case !resp.GetSucceeded():
			return nil, errConditions
		}
		told, err := balancesOf(resp, len(asked.Keys))
		return check.BankTold{Revisions: told.Revisions}, err
	})
}

// readBack reads the accounts of each group at one moment, also those that lie in several shards by now: key by key, twice,
// until nothing has changed in between.
func (d *bank) readBack(ctx context.Context) error {
	groups := d.groups.all()
	return d.run.each(ctx, len(groups), func(ctx context.Context, t *thread, i int) error {
		asked := check.BankAsked{Keys: accounts(groups[i]), Total: accountsOfGroup * openingBalance, Final: true}
		return t.read(ctx, check.BankReadName, &asked, func(ctx context.Context) (any, error) {
			for last := (check.BankTold{}); ; {
				told, err := t.collect(ctx, asked.Keys)
				if err != nil || slices.Equal(told.Revisions, last.Revisions) {
					return told, err
				}
				last = told
			}
		})
	})
}

func (t *thread) collect(ctx context.Context, keys []string) (told check.BankTold, err error) {
	for _, key := range keys {
		item, _, err := t.client.Get(ctx, []byte(key))
		if err != nil {
			return told, err
		}
		told.Values = append(told.Values, string(item.Record.Value))
		told.Revisions = append(told.Revisions, item.Record.Revision)
	}
	return told, nil
}

func judgeBank(j *judging) {
	b, err := check.BankOf(j.calls)
	if j.failed(err); err != nil {
		return
	}
	j.found(check.Sums(b.Reads)...)
	j.found(check.Cuts(b.History, b.Cuts())...)
	j.found(check.Revisions(b.History)...)
	j.found(b.NoLostWrites()...)
	j.found(check.Linearizable(b.History, searchMax)...)
	j.verdict.Figures["reads"] = float64(len(b.Reads))
}
