// SPDX-License-Identifier: MIT
//
// Packed lists of numbers: ascending, none twice, each below the limit of the
// field. A message has any number of them, so they are no lists of a scan:
// sorting one moves its numbers about where they lie.
#ifndef TVIXB_PACKED_H
#define TVIXB_PACKED_H

#include "memory.h"
#include "scan.h"
#include "view.h"

// Checks a list, whose field is at this depth of the scan's path, and notes it
// if it is unsorted. False if a number is not in the ordinary form, or memory
// is out (scan->out_of_memory).
bool tvixb_packed_scan(tvixb_scan* scan, const tvixb_field* field,
                       tvixb_view list, unsigned depth);

// Sorts the lists that the scan has noted in a copy of the message, which takes
// the message's place in the scan and in *bytes. False if memory is out.
bool tvixb_packed_sort(tvixb_scan* scan, tvixb_arena* arena, tvixb_view* bytes);

#endif  // TVIXB_PACKED_H
