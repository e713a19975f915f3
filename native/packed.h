// SPDX-License-Identifier: MIT
//
// Packed lists of numbers: ascending, none twice, each below the limit of the
// field. A message has any number of them, and their numbers are no elements of
// a scan: the scan notes those lists that must be sorted or have duplicates.
#ifndef TVIXB_PACKED_H
#define TVIXB_PACKED_H

#include "memory.h"
#include "scan.h"
#include "view.h"

// Checks a list, whose field is at this depth of the scan's path, and notes it
// if it is unsorted or has equal numbers. False if a number is not in the
// ordinary form, or memory is out (scan->out_of_memory).
bool tvixb_packed_scan(tvixb_scan* scan, const tvixb_field* field,
                       tvixb_view list, unsigned depth);

// Reports the duplicates in the lists that the scan has noted. If the message
// is valid but for its order and `arena` is not NULL, also sorts the lists, in
// a copy of the message in the arena that takes its place in the scan.
// `numbers` is memory to work in. False if memory is out.
bool tvixb_packed_order(tvixb_scan* scan, tvixb_vector* numbers,
                        tvixb_arena* arena, tvixb_report* report);

#endif  // TVIXB_PACKED_H
