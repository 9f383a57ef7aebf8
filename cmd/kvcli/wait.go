package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	kvdv1 "github.com/kvdstore/kvd/api/kvd/v1"
	"github.com/kvdstore/kvd/client"
)

const (
	// waitTimeout is the default of --timeout for what waits until a goal is reached, drainTimeout for node drain.
	waitTimeout  = 5 * time.Minute
	drainTimeout = time.Hour
	// waitPause is between two looks.
	waitPause = 200 * time.Millisecond
)

// progress tells on standard error what is waited for: on a terminal in one line that changes, else in a line for each
// change.
type progress struct {
	out      io.Writer
	terminal bool
	last     string
}

func newProgress() *progress {
	return &progress{out: os.Stderr, terminal: term.IsTerminal(int(os.Stderr.Fd()))}
}

func (p *progress) show(text string) {
	if text == "" || text == p.last {
		return
	}
	p.last = text
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K%s", text)
		return
	}
	fmt.Fprintln(p.out, "kvcli:", text)
}

// end makes room for what follows.
func (p *progress) end() {
	if p.terminal && p.last != "" {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// waiter is a command that changes something and then waits until it has come about.
type waiter struct {
	c      *cli
	call   time.Duration // Bounds one call.
	noWait *bool
}

// waits adds --no-wait to a command.
func (c *cli) waits(cmd *cobra.Command) *waiter {
	return &waiter{c: c, noWait: cmd.Flags().Bool("no-wait", false, "answer when it is decided, not when it is done")}
}

// with calls f with a client, a context of the time that the waiting may take if --timeout is not given, and the nodes.
func (w *waiter) with(cmd *cobra.Command, wait time.Duration, f func(ctx context.Context, cl *client.Client) error) error {
	w.call = w.c.timeout
	if !cmd.Flags().Changed("timeout") {
		w.c.timeout = wait
	}
	return w.c.with(cmd, true, f)
}

// once bounds one call.
func (w *waiter) once(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, w.call)
}

// until calls look now and then until it tells that there is nothing to wait for any more. What look cannot see for the
// moment is shown and tried again. At the end of the context it is not done.
func (w *waiter) until(ctx context.Context, what string, look func(ctx context.Context) (done bool, text string, err error)) error {
	p := newProgress()
	defer p.end()
	for {
		one, cancel := w.once(ctx)
		done, text, err := look(one)
		cancel()
		if done {
			return err
		}
		if err != nil && ctx.Err() == nil {
			text = "no answer now: " + err.Error()
		}
		p.show(text)
		timer := time.NewTimer(waitPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%s at the end of --timeout; it goes on without being waited for: %s%w", what, p.last, quiet{client.ErrNotDone})
		}
	}
}

// goalJSON is what became of a goal.
type goalJSON struct {
	Goal  uint64   `json:"goal"`
	Shard uint64   `json:"shard"`
	State string   `json:"state"`
	Text  string   `json:"text,omitempty"`
	Steps []string `json:"steps,omitempty"`
}

// goal prints what a dry run has told, or waits for the goal that was set.
func (w *waiter) goal(ctx context.Context, cmd *cobra.Command, cl *client.Client, resp *kvdv1.GoalResponse) error {
	out := goalJSON{Goal: resp.GetGoal().GetId(), Shard: resp.GetGoal().GetShard(), State: "open", Steps: resp.GetSteps()}
	if out.Goal == 0 {
		out.State = "dry run"
		return w.print(cmd, out)
	}
	if *w.noWait {
		return w.print(cmd, out)
	}
	what := fmt.Sprintf("goal %d is not reached", out.Goal)
	err := w.until(ctx, what, func(ctx context.Context) (bool, string, error) {
		st, err := cl.GoalStatus(ctx, &kvdv1.GoalStatusRequest{Goal: out.Goal})
		if err != nil {
			return false, "", err
		}
		out.Text = st.GetProgress()
		switch st.GetState() {
		case kvdv1.GoalStatusResponse_DONE:
			out.State = "done"
			return true, "", nil
		case kvdv1.GoalStatusResponse_GIVEN_UP:
			out.State = "given up"
			return true, "", fmt.Errorf("goal %d was given up: %s%w", out.Goal, out.Text, quiet{client.ErrNotDone})
		case kvdv1.GoalStatusResponse_UNKNOWN_GOAL:
			out.State = "unknown"
			return true, "", fmt.Errorf("no node that answers knows what became of goal %d%w", out.Goal, quiet{client.ErrUnknown})
		}
		return false, fmt.Sprintf("goal %d: %s", out.Goal, cmp.Or(out.Text, "it is on the way")), nil
	})
	if err != nil {
		return err
	}
	out.Steps = nil
	return w.print(cmd, out)
}

func (w *waiter) print(cmd *cobra.Command, g goalJSON) error {
	if w.c.output == "json" {
		return w.c.json(cmd, g)
	}
	out := cmd.OutOrStdout()
	switch {
	case g.Goal != 0 && g.Text != "":
		_, _ = fmt.Fprintf(out, "goal %d %s: %s\n", g.Goal, g.State, g.Text)
	case g.Goal != 0:
		_, _ = fmt.Fprintf(out, "goal %d %s\n", g.Goal, g.State)
	default:
		_, _ = fmt.Fprintf(out, "nothing was changed; what would be done with shard %d:\n", g.Shard)
	}
	for i, step := range g.Steps {
		_, _ = fmt.Fprintf(out, "%d. %s\n", i+1, step)
	}
	return nil
}
