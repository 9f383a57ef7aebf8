// Package overload drives a cluster with more than it can do, and judges how it stands that.
//
//	warm ── capacity ── storm: five times as much ── rest ── warm ── capacity
//
// First some threads do as much as they can, one operation after the other: that is the capacity. Then operations begin at
// five times that rate, whatever becomes of those before, as a crowd of clients that do not know of each other would. Nobody
// repeats anything: a refusal is an answer. Then the threads work as at first, after a while in which the stores may compact what the
// storm has written. Whoever asks is to use the same keys all the time: with more data than before a cluster does less for another reason.
//
// A cluster stands it if no process ends, if what it accepts is answered within a bound, if what it refuses is refused at once with a
// hint when to come again, if next to nothing ends in another way, and if it does afterwards what it did before.
package overload
