// SPDX-License-Identifier: MIT
//
// One pass over a message in the ordinary form: fields in ascending order, each
// at most once but for lists, shortest varints, no defaults, UTF-8. Checks
// every rule that one value decides, and notes the elements of the sorted lists
// and whether they are in order.
#ifndef TVIXB_SCAN_H
#define TVIXB_SCAN_H

#include "memory.h"
#include "report.h"
#include "schema.h"
#include "view.h"

// An element of a sorted list. Its bytes (tag, length, value) reach to the next
// element's, or to the end of the list.
typedef struct tvixb_element {
  uint64_t begin;     // offset in the message, in bytes
  uint32_t key;       // offset of the sort key from begin
  uint32_t key_size;  // at most 2^31 - 1
} tvixb_element;

// A sorted list, as received.
typedef struct tvixb_list {
  size_t first;  // its elements are elements[first .. first + count)
  size_t count;
  uint64_t end;     // offset in the message, in bytes
  bool unsorted;    // some key is smaller than the one before it
  bool has_equals;  // some key equals the one before it
  tvixb_path path;  // of an element; the last index varies
} tvixb_list;

typedef struct tvixb_scan {
  const uint8_t* data;
  tvixb_list lists[TVIXB_LIST_MAX];
  tvixb_vector elements;  // tvixb_element, list by list
  tvixb_path path;        // of the value at hand
  tvixb_view key;         // of the element at hand
  uint64_t last_prefix;   // of the key of the element before it
  tvixb_view last_key;
  uint64_t size;       // of a Directory: elements below it
  bool size_overflow;  // which does not fit 64 bits
  bool out_of_memory;
} tvixb_scan;

// False if the bytes are not in the ordinary form (tvixb_decode_check and
// tvixb_normalize tell what they are) or memory is out (scan->out_of_memory).
// Violations go to the report. The scan lends its lists until the next one.
bool tvixb_scan_message(tvixb_scan* scan, const tvixb_kind* kind,
                        tvixb_view bytes, tvixb_report* report);

// The sort key of an element.
static inline tvixb_view tvixb_scan_key(const tvixb_scan* scan, size_t index) {
  const tvixb_element* element =
      (const tvixb_element*)scan->elements.items + index;
  return (tvixb_view){scan->data + element->begin + element->key,
                      element->key_size};
}

void tvixb_scan_free(tvixb_scan* scan);

#endif  // TVIXB_SCAN_H
