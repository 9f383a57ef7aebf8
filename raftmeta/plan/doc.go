// Package plan decides what is to become of shards: a pure function of the map, the settings and what nodes report.
//
// The core of the node that leads the meta group asks it once a second. Two questions, two halves:
//
//	Step  what should be different?     map, settings, reports -> goals (commands of the meta group)
//	Next  what is the next step there?  descriptor, goal, reports -> an order for the shard's leader, or what is waited for
//
// A goal is in the metadata, at most one a shard; a step of it is an order with the epoch that it was computed from (M2).
// There is no cursor: Next computes the step from what is, so an order may be lost, repeated, late or refused, and
// leaders of the shard or of the meta group may change in between, and the same step is merely computed again.
//
// Step prefers doing nothing to doing little. In this order it looks at placement rules, repair (dead nodes, missing and
// surplus replicas, draining), splits and merges, and at last the balance of leaders and replicas. What keeps it from
// going to and fro:
//
//   - a merge needs sizes and loads far below those that lead to a split;
//   - leaders and replicas move only when a node is well above the mean, and only if that makes it better;
//   - after each change a shard is left alone for a while, longer in the opposite direction;
//   - moves and merges have a budget of keys a minute.
//
// A Planner remembers only what these need, and begins anew with each leadership of the meta group.
package plan
