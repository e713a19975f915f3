// SPDX-License-Identifier: MIT
//
// Sorts list elements by their keys: by 8 bytes of each key as a number, and by
// comparing keys only if those are equal. Stable; at most O(n log n)
// comparisons.
#ifndef TVIXB_SORT_H
#define TVIXB_SORT_H

#include "memory.h"
#include "scan.h"

// A reference to a sort key.
typedef struct tvixb_sort_key {
  uint64_t prefix;   // 8 bytes of the key, after the common prefix of all keys
  uint32_t element;  // index in the scan's elements
  uint32_t begin;    // offset of the element in bytes, modulo 2^32
} tvixb_sort_key;

// Returns the offset in bytes of a key's element in the message.
static inline size_t tvixb_sort_key_begin(const tvixb_scan* scan,
                                          const tvixb_sort_key* key) {
  const tvixb_element* elements = scan->elements.items;
  return (uint64_t)(scan->end - scan->data) <= UINT32_MAX
             ? key->begin
             : (size_t)elements[key->element].begin;
}

// Scratch memory, reused from sort to sort.
typedef struct tvixb_sort_memory {
  tvixb_vector scratch;  // tvixb_sort_key
  tvixb_vector counts;   // uint32_t
} tvixb_sort_memory;

// Writes the elements first .. first + count of a scan to keys[0 .. count) in
// ascending order of their keys. Returns false if an allocation fails or first
// + count exceeds 2^32 - 1.
bool tvixb_sort_elements(const tvixb_scan* scan, size_t first, size_t count,
                         tvixb_sort_key* keys, tvixb_sort_memory* memory);

// Frees the scratch memory.
void tvixb_sort_memory_free(tvixb_sort_memory* memory);

#endif  // TVIXB_SORT_H
