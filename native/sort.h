// SPDX-License-Identifier: MIT
//
// Sorts keys by their first bytes as numbers, and by comparing only where those
// are equal. Stable; never worse than n log n comparisons.
#ifndef TVIXB_SORT_H
#define TVIXB_SORT_H

#include "memory.h"
#include "scan.h"

// A sort key, by reference: `prefix` are 8 of its bytes, those that follow what
// all keys begin with.
typedef struct tvixb_sort_key {
  uint64_t prefix;
  uint32_t element;  // index in the scan's elements
  uint32_t begin;    // of that element, modulo 2^32
} tvixb_sort_key;

// Where a key's element begins in the message.
static inline size_t tvixb_sort_key_begin(const tvixb_scan* scan,
                                          const tvixb_sort_key* key) {
  const tvixb_element* elements = scan->elements.items;
  return (uint64_t)(scan->end - scan->data) <= UINT32_MAX
             ? key->begin
             : (size_t)elements[key->element].begin;
}

// Memory that sorts use; kept from one to the next.
typedef struct tvixb_sort_memory {
  tvixb_vector scratch;  // tvixb_sort_key
  tvixb_vector counts;   // uint32_t
} tvixb_sort_memory;

// Writes the elements first .. first + count of a scan to keys, in ascending
// order of their keys. False if memory is out; for 2^32 elements it is.
bool tvixb_sort_elements(const tvixb_scan* scan, size_t first, size_t count,
                         tvixb_sort_key* keys, tvixb_sort_memory* memory);

void tvixb_sort_memory_free(tvixb_sort_memory* memory);

#endif  // TVIXB_SORT_H
