// SPDX-License-Identifier: MIT
//
// The sorted order of a scanned message's lists, and the rules that look at
// whole lists: duplicates, and keys of one list in another.
#ifndef TVIXB_ORDER_H
#define TVIXB_ORDER_H

#include "memory.h"
#include "report.h"
#include "scan.h"
#include "schema.h"
#include "sort.h"

typedef struct tvixb_order {
  tvixb_vector keys;     // tvixb_sort_key, list by list as in the scan
  tvixb_vector matched;  // bytes, whether a relation matched a key of a list
  tvixb_vector numbers;  // of packed.c
  tvixb_sort_memory sort_memory;
} tvixb_order;

// Sorts what is unsorted, and reports duplicates, lists of a wrong length and
// violated relations. `caller_counts` as for tvixb_scan_message. False if
// memory is out. For an unsorted list, the keys at its elements' indices are in
// sorted order afterwards; the others are undefined. Packed lists are sorted
// only if `arena` is not NULL and the message is valid but for its order; the
// scan's bytes are a copy in the arena then.
bool tvixb_order_lists(tvixb_order* order, tvixb_scan* scan,
                       const tvixb_kind* kind, const uint64_t* caller_counts,
                       tvixb_arena* arena, tvixb_report* report);

void tvixb_order_free(tvixb_order* order);

#endif  // TVIXB_ORDER_H
