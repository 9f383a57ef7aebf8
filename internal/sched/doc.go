// Package sched chooses how the kernel schedules the threads of this process.
//
// A request goes through several threads of a node, and each wakes the next. A thread of SCHED_OTHER that is woken often takes the
// processor from the one that runs; one of SCHED_BATCH waits until that one rests or has used up its slice, which spares most
// changes between threads where all of them run briefly (sched(7), docs/adr/0005). But beside programs that
// compute without a rest it waits for their slices, of milliseconds, each time that it is woken. So Run takes SCHED_BATCH, watches
// how long threads wait for each moment that they run, and goes back to SCHED_OTHER where that is too long, until there is room.
//
// Neither needs a privilege. A process that was started with another policy than SCHED_OTHER keeps that.
package sched
