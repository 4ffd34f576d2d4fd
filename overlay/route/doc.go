// Package route turns what nodes say about their links into next hops.
//
// A Table is built once from a set of link records and never changes, so any
// number of goroutines may ask it. It promises:
//
//   - One rule for edges. A link counts when at least one end's fresh record
//     lists it and no end that has a fresh record leaves it out. A node whose
//     process dies cannot retract its record; its neighbours' records do that.
//   - Hop by hop is path. Every node that holds the same records answers Next in
//     such a way that following the answers gives Path, and the remaining cost
//     falls with every hop: there are no loops.
//   - A second choice exists whenever a path exists without the first one, and it
//     leads to the destination without coming back here or through the first
//     choice. Where several do, one is preferred whose own Next decisions, made
//     without knowing that anything broke, already keep away from both.
//   - Nothing is made up: no record, no route.
//
// Round trip times enter as a few classes with hysteresis, because a record that
// changed with every measurement would be flooded with every measurement. A node
// under doubt stays usable at a price (DoubtPenalty) that every detour undercuts.
//
// Tests build random graphs and check those sentences one by one.
//
// Read next: table.go, then package overlay/records, which carries the records
// that a Table is built from.
package route
