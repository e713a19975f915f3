// SPDX-License-Identifier: MIT
//
// One pass over a message in the ordinary form: fields in ascending order, each
// at most once but for lists, shortest varints, no defaults, UTF-8. Checks
// every rule that one value decides, and notes the elements of the sorted lists
// and whether they are in order. The code that follows a message's fields is
// made from its table, scan_message.h; scan.c is what all of it shares.
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
  uint64_t prefix;    // of the sort key (tvixb_view_prefix)
  uint32_t key;       // offset of the sort key from begin
  uint32_t key_size;  // at most 2^31 - 1
} tvixb_element;

// A sorted list, as received.
typedef struct tvixb_list {
  size_t first;  // its elements are elements[first .. first + count)
  size_t count;
  uint64_t end;     // offset in the message, in bytes
  bool unsorted;    // some key is smaller than the one before it; or it is
                    // parallel to a list of which that is true
  bool has_equals;  // some key equals the one before it; up to the first
                    // that is out of order
  // Fields from the root to the list; an element's index is the only one.
  uint8_t depth;
  uint8_t field[TVIXB_DEPTH_MAX];
} tvixb_list;

// A packed list that is unsorted or has equal numbers.
typedef struct tvixb_packed_list {
  size_t begin;  // offset of the first number in the message, in bytes
  size_t size;   // of the numbers, in bytes
  bool unsorted;
  tvixb_path path;  // of the list; its last index is any
} tvixb_packed_list;

struct tvixb_scan {
  const uint8_t* data;
  const uint8_t* end;
  tvixb_report* report;
  tvixb_list lists[TVIXB_LIST_MAX];
  tvixb_vector elements;   // tvixb_element, list by list
  tvixb_vector packed;     // tvixb_packed_list, in the order of the message
  tvixb_path path;         // of the value at hand
  tvixb_view path_prefix;  // value of the field with that mark, or empty
  uint64_t counts[TVIXB_COUNTS];  // by tvixb_count
  uint64_t total;                 // of the values that add to it
  bool total_overflow;            // it does not fit 64 bits
  bool out_of_memory;
};

// False if the bytes are not in the ordinary form (tvixb_decode_check and
// tvixb_normalize tell what they are) or memory is out (scan->out_of_memory).
// Violations go to the report. `caller_counts` has TVIXB_COUNTS numbers, by
// tvixb_count; TVIXB_ANY: unknown. The scan lends its lists until the next one.
bool tvixb_scan_message(tvixb_scan* scan, const tvixb_kind* kind,
                        tvixb_view bytes, const uint64_t* caller_counts,
                        tvixb_report* report);

// The sort key of an element.
static inline tvixb_view tvixb_scan_key(const tvixb_scan* scan, size_t index) {
  const tvixb_element* element =
      (const tvixb_element*)scan->elements.items + index;
  return (tvixb_view){scan->data + element->begin + element->key,
                      element->key_size};
}

// Compares the sort keys of two elements.
static inline int tvixb_scan_compare(const tvixb_scan* scan, size_t a,
                                     size_t b) {
  const tvixb_element* elements = scan->elements.items;
  if (elements[a].prefix != elements[b].prefix) {
    return elements[a].prefix < elements[b].prefix ? -1 : 1;
  }
  return tvixb_view_compare(tvixb_scan_key(scan, a), tvixb_scan_key(scan, b));
}

void tvixb_scan_free(tvixb_scan* scan);

// The rest is for scan_message.h.

// Reads a varint of more than one byte; NULL if it is not the shortest.
const uint8_t* tvixb_scan_long_varint(const uint8_t* p, const uint8_t* end,
                                      uint64_t* value);

// Reads a varint; NULL if it is not the shortest.
static inline const uint8_t* tvixb_scan_number(const uint8_t* p,
                                               const uint8_t* end,
                                               uint64_t* value) {
  if (p == end || *p >= 0x80) return tvixb_scan_long_varint(p, end, value);
  *value = *p;
  return p + 1;
}

// Reports `value` at the first `depth` steps of the path.
void tvixb_scan_report(tvixb_scan* scan, uint8_t code, unsigned depth,
                       tvixb_view value);

// Skips what is left of a message, which must be unknown fields: the end, or
// NULL if it is anything else.
const uint8_t* tvixb_scan_unknown(tvixb_scan* scan,
                                  const tvixb_message* message,
                                  const uint8_t* p, const uint8_t* end,
                                  unsigned depth);

// Reports what a message lacks. `seen` has bits by field number.
void tvixb_scan_absent(tvixb_scan* scan, const tvixb_message* message,
                       unsigned depth, unsigned seen);

// The slow part of tvixb_scan_add_element, where the key may not be greater
// than the one before it.
void tvixb_scan_add_smaller(tvixb_scan* scan, unsigned list, uint64_t index,
                            unsigned depth, tvixb_view key);

static inline void tvixb_scan_add_to_total(tvixb_scan* scan, uint64_t value) {
  scan->total_overflow |= value > UINT64_MAX - scan->total;
  scan->total += value;
}

// Begins a list at the field of the path that is at this depth.
static inline void tvixb_scan_begin_list(tvixb_scan* scan, unsigned list,
                                         unsigned depth) {
  tvixb_list* state = &scan->lists[list];
  state->first = scan->elements.count;
  state->depth = (uint8_t)(depth + 1);
  memcpy(state->field, scan->path.field, sizeof state->field);
}

// Notes element `index` of a sorted list, which has a key if it is `keyed`.
// False if memory is out.
static inline bool tvixb_scan_add_element(tvixb_scan* scan, unsigned list,
                                          bool keyed, uint64_t index,
                                          unsigned depth, const uint8_t* begin,
                                          tvixb_view key) {
  if (!tvixb_vector_reserve(&scan->elements, 1, sizeof(tvixb_element))) {
    scan->out_of_memory = true;
    return false;
  }
  uint64_t prefix = tvixb_view_prefix_before(key, scan->end);
  tvixb_element* element =
      (tvixb_element*)scan->elements.items + scan->elements.count;
  if (keyed && index && !scan->lists[list].unsorted &&
      prefix <= element[-1].prefix) {
    tvixb_scan_add_smaller(scan, list, index, depth, key);
  }
  element->begin = (uint64_t)(begin - scan->data);
  element->prefix = prefix;
  element->key = key.size ? (uint32_t)(key.data - begin) : 0;
  element->key_size = (uint32_t)key.size;
  scan->elements.count++;
  return true;
}

// Ends a list of `count` elements at `end`.
static inline void tvixb_scan_end_list(tvixb_scan* scan, unsigned list,
                                       uint64_t count, const uint8_t* end) {
  scan->lists[list].count = count;
  scan->lists[list].end = (uint64_t)(end - scan->data);
}

#endif  // TVIXB_SCAN_H
