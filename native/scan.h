// SPDX-License-Identifier: MIT
//
// Scans a message in the ordinary form, in one pass. In the ordinary form,
// fields are in ascending order, a field that is not a list occurs at most
// once, varints are the shortest, default values are absent and strings are
// UTF-8.
//
// The scan checks all rules for single values, records the elements of sorted
// lists and finds out whether they are in order. scan_message.h makes a scan
// function for each message from its table; scan.c has the code that they
// share.
#ifndef TVIXB_SCAN_H
#define TVIXB_SCAN_H

#include "memory.h"
#include "report.h"
#include "schema.h"
#include "view.h"

// An element of a sorted list. Its bytes (tag, length, value) end at the next
// element or at the end of the list.
typedef struct tvixb_element {
  uint64_t begin;     // offset in the message, in bytes
  uint64_t prefix;    // of the sort key (tvixb_view_prefix)
  uint32_t key;       // offset of the sort key from `begin`, in bytes
  uint32_t key_size;  // in bytes, at most 2^31 - 1
} tvixb_element;

// A list that must be sorted, in the order of the message.
struct tvixb_list {
  size_t first;  // its elements are elements[first .. first + count)
  size_t count;
  uint64_t end;     // offset in the message, in bytes
  bool unsorted;    // a key is less than the previous one, here or in the list
                    // to which this one is parallel
  bool has_equals;  // a key equals the previous one; not recorded after the
                    // first key that is out of order
  // Fields from the root to the list. Only the last one has an index.
  uint8_t depth;
  uint8_t field[TVIXB_DEPTH_MAX];
};

// A packed list that is unsorted or has equal numbers.
typedef struct tvixb_packed_list {
  size_t begin;  // offset of the first number in the message, in bytes
  size_t size;   // of the numbers, in bytes
  bool unsorted;
  tvixb_path path;  // of the list; its last index is undefined
} tvixb_packed_list;

struct tvixb_scan {
  const uint8_t* data;
  const uint8_t* end;
  tvixb_report* report;
  tvixb_list lists[TVIXB_LIST_MAX];
  tvixb_vector elements;   // tvixb_element, list by list
  tvixb_vector packed;     // tvixb_packed_list, in the order of the message
  tvixb_vector parts;      // tvixb_view; the contents of parts of a graph
  unsigned outer_depth;    // number of messages that the message is in; kept
                           // from scan to scan
  tvixb_path path;         // of the current value
  tvixb_view path_prefix;  // value of the path_prefix field, or empty
  unsigned depth_max;      // greatest depth of groups, in fields of the path
  uint64_t counts[TVIXB_COUNTS];  // by tvixb_count
  uint64_t total;                 // sum of the adds_to_total fields
  bool total_overflow;            // the sum does not fit 64 bits
  bool out_of_memory;
};

// Scans a message and adds its violations to the report. Returns false if the
// bytes are not in the ordinary form, or if an allocation fails
// (scan->out_of_memory). `caller_counts` has TVIXB_COUNTS counts, indexed by
// tvixb_count; TVIXB_ANY means unknown. The lists and elements are valid until
// the next scan; they refer to `bytes`.
bool tvixb_scan_message(tvixb_scan* scan, const tvixb_kind* kind,
                        tvixb_view bytes, const uint64_t* caller_counts,
                        tvixb_report* report);

// Returns the sort key of an element.
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

// Frees vectors that are too large to keep for the next call.
void tvixb_scan_trim(tvixb_scan* scan);

// Frees the memory of a scan.
void tvixb_scan_free(tvixb_scan* scan);

// The functions below are for scan_message.h and packed.c.

// Reads a varint of more than one byte. Returns its end; NULL if it is not the
// shortest form or is incomplete.
const uint8_t* tvixb_scan_long_varint(const uint8_t* p, const uint8_t* end,
                                      uint64_t* value);

// Reads a varint. Returns its end; NULL if it is not the shortest form or is
// incomplete.
static inline const uint8_t* tvixb_scan_number(const uint8_t* p,
                                               const uint8_t* end,
                                               uint64_t* value) {
  if (p == end || *p >= 0x80) return tvixb_scan_long_varint(p, end, value);
  *value = *p;
  return p + 1;
}

// A tvixb_scan_function for a part of a graph: records the content, and scans
// nothing.
const uint8_t* tvixb_scan_part(tvixb_scan* scan, const uint8_t* p,
                               const uint8_t* end, unsigned depth,
                               tvixb_list* lists, tvixb_view* key);

// Reports `value` at the first `depth` fields of the path.
void tvixb_scan_report(tvixb_scan* scan, uint8_t code, unsigned depth,
                       tvixb_view value);

// Reports a number at the first `depth` fields of the path.
void tvixb_scan_report_number(tvixb_scan* scan, uint8_t code, unsigned depth,
                              uint64_t number);

// Skips the rest of a message, which must be unknown fields, and reports the
// first. Returns the end; NULL if the rest is not unknown fields.
const uint8_t* tvixb_scan_unknown(tvixb_scan* scan,
                                  const tvixb_message* message,
                                  const uint8_t* p, const uint8_t* end,
                                  unsigned depth);

// Reports the fields that a message lacks. `seen` has a bit for each field
// number.
void tvixb_scan_absent(tvixb_scan* scan, const tvixb_message* message,
                       unsigned depth, unsigned seen);

// Slow path of tvixb_scan_add_element, for a key that may not be greater than
// the previous one.
void tvixb_scan_add_smaller(tvixb_scan* scan, tvixb_list* list, uint64_t index,
                            unsigned depth, tvixb_view key);

static inline void tvixb_scan_add_to_total(tvixb_scan* scan, uint64_t value) {
  scan->total_overflow |= value > UINT64_MAX - scan->total;
  scan->total += value;
}

// Begins a list, whose field is at this depth of the path.
static inline void tvixb_scan_begin_list(tvixb_scan* scan, tvixb_list* list,
                                         unsigned depth) {
  list->first = scan->elements.count;
  list->depth = (uint8_t)(depth + 1);
  memcpy(list->field, scan->path.field, sizeof list->field);
}

// Records element `index` of a sorted list, which has a key if `keyed`. Returns
// false if an allocation fails.
static inline bool tvixb_scan_add_element(tvixb_scan* scan, tvixb_list* list,
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
  if (keyed && index && !list->unsorted && prefix <= element[-1].prefix) {
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
static inline void tvixb_scan_end_list(tvixb_scan* scan, tvixb_list* list,
                                       uint64_t count, const uint8_t* end) {
  list->count = count;
  list->end = (uint64_t)(end - scan->data);
}

#endif  // TVIXB_SCAN_H
