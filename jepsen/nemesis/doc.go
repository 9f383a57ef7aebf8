// Package nemesis does to a cluster what happens to clusters: machines die and stand still, networks break, disks lie, and
// operators change things meanwhile.
//
// A seed draws which faults come when, how long they last and whom they befall (Schedule). They come in rounds, one fault or
// several at a time, and after each round the cluster is whole again for a while:
//
//	quiet │ kill n2, split │ quiet │ partition │ quiet │ pause n1 and n4, slow, move │ quiet
//
// Whom a drawn fault befalls depends also on who leads what at that moment, so the same seed gives the same schedule and
// not the same history. Each fault is recorded with its begin and its end under check.Nemesis; the value is a JSON object with
// "phase" ("begin", "end", or "once" for what has no length) and details.
//
// Nothing that kvd does not promise to survive is done: no process loses for good what it has synced, but those of a
// minority whose files are changed.
package nemesis
