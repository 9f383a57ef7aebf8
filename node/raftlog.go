package node

import (
	"context"
	"fmt"
	"log/slog"

	"go.etcd.io/raft/v3"
)

// raftLogger writes what raft says to the node's log: elections and the like at level debug. What raft calls fatal is
// a broken invariant, and panics.
type raftLogger struct{ logger *slog.Logger }

var _ raft.Logger = raftLogger{}

func (l raftLogger) say(level slog.Level, args []any) {
	if l.logger.Enabled(context.Background(), level) {
		l.logger.Log(context.Background(), level, fmt.Sprint(args...), "from", "raft")
	}
}

func (l raftLogger) sayf(level slog.Level, format string, args []any) {
	if l.logger.Enabled(context.Background(), level) {
		l.logger.Log(context.Background(), level, fmt.Sprintf(format, args...), "from", "raft")
	}
}

func (l raftLogger) Debug(v ...any)                 { l.say(slog.LevelDebug-1, v) }
func (l raftLogger) Debugf(format string, v ...any) { l.sayf(slog.LevelDebug-1, format, v) }
func (l raftLogger) Info(v ...any)                  { l.say(slog.LevelDebug, v) }
func (l raftLogger) Infof(format string, v ...any)  { l.sayf(slog.LevelDebug, format, v) }
func (l raftLogger) Warning(v ...any)               { l.say(slog.LevelDebug, v) }
func (l raftLogger) Warningf(format string, v ...any) {
	l.sayf(slog.LevelDebug, format, v)
}
func (l raftLogger) Error(v ...any)                 { l.say(slog.LevelError, v) }
func (l raftLogger) Errorf(format string, v ...any) { l.sayf(slog.LevelError, format, v) }
func (l raftLogger) Fatal(v ...any)                 { panic(fmt.Sprint(v...)) }
func (l raftLogger) Fatalf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
func (l raftLogger) Panic(v ...any)                 { panic(fmt.Sprint(v...)) }
func (l raftLogger) Panicf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
