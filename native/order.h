// SPDX-License-Identifier: MIT
//
// Sorts the lists of a scanned message and checks the rules for whole lists:
// unique keys, lengths, and relations between two lists.
#ifndef TVIXB_ORDER_H
#define TVIXB_ORDER_H

#include "memory.h"
#include "report.h"
#include "scan.h"
#include "schema.h"
#include "sort.h"

typedef struct tvixb_order {
  tvixb_vector keys;     // tvixb_sort_key, list by list as in the scan
  tvixb_vector matched;  // bytes: whether a relation matched a key of a list
  tvixb_vector numbers;  // for packed.c
  tvixb_sort_memory sort_memory;
} tvixb_order;

// Sorts unsorted lists, and reports duplicates, lists of a wrong length and
// violated relations. `caller_counts` is as for tvixb_scan_message. Returns
// false if an allocation fails.
//
// Afterwards, order->keys has the sorted keys of each unsorted list at the
// indices of its elements; its other keys are undefined. Sorts packed lists
// only if `arena` is not NULL and all violations of the message are
// TVIXB_CODE_NOT_SORTED; the scan then refers to a sorted copy of the message
// in the arena.
bool tvixb_order_lists(tvixb_order* order, tvixb_scan* scan,
                       const tvixb_kind* kind, const uint64_t* caller_counts,
                       tvixb_arena* arena, tvixb_report* report);

// Returns element `i` of a sorted list, as its index in the scan's elements.
static inline size_t tvixb_order_element(const tvixb_order* order,
                                         const tvixb_list* list, size_t i) {
  const tvixb_sort_key* keys = order->keys.items;
  return list->unsorted ? keys[list->first + i].element : list->first + i;
}

// Returns the first element of a sorted list that has the key, as its index in
// the list as received; SIZE_MAX if there is none. Searches from place `from`
// on, before which no key may be equal or greater.
size_t tvixb_order_find(const tvixb_order* order, const tvixb_scan* scan,
                        const tvixb_list* list, size_t from, tvixb_view key);

// Frees vectors that are too large to keep for the next call.
void tvixb_order_trim(tvixb_order* order);

// Frees the memory of an order.
void tvixb_order_free(tvixb_order* order);

#endif  // TVIXB_ORDER_H
