// SPDX-License-Identifier: MIT
//
// Checks packed lists of numbers, which must be ascending, unique and less than
// the limit of the field. A message can have any number of packed lists. Their
// numbers are not elements of the scan, which only records the lists that are
// unsorted or have duplicates.
#ifndef TVIXB_PACKED_H
#define TVIXB_PACKED_H

#include "memory.h"
#include "scan.h"
#include "view.h"

// Checks a list, whose field is at this depth of the scan's path, and records
// it in the scan if it is unsorted or has equal numbers. Returns false if a
// number is not in the ordinary form, or if an allocation fails
// (scan->out_of_memory).
bool tvixb_packed_scan(tvixb_scan* scan, const tvixb_field* field,
                       tvixb_view list, unsigned depth);

// Reports the duplicates in the lists that the scan has recorded. If all
// violations of the message are TVIXB_CODE_NOT_SORTED and `arena` is not NULL,
// also copies the message to the arena, sorts the lists in the copy, and makes
// the scan refer to it. `numbers` is scratch memory. Returns false if an
// allocation fails.
bool tvixb_packed_order(tvixb_scan* scan, tvixb_vector* numbers,
                        tvixb_arena* arena, tvixb_report* report);

#endif  // TVIXB_PACKED_H
