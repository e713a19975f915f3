// SPDX-License-Identifier: MIT
#include "packed.h"

#include <string.h>

#include "rules.h"
#include "wire.h"

// A number and its index in the list.
typedef struct number {
  uint64_t value;
  uint64_t index;
} number;

// Merges from[begin .. middle) and from[middle .. end), which are sorted, into
// `to`.
static void merge(const number* from, number* to, size_t begin, size_t middle,
                  size_t end) {
  size_t left = begin, right = middle;
  for (size_t i = begin; i < end; i++) {
    bool take_left = right == end ||
                     (left < middle && from[left].value <= from[right].value);
    to[i] = take_left ? from[left++] : from[right++];
  }
}

// Sets *sorted to the *count numbers of a list in ascending order, in memory of
// the vector. The sort is stable. Stops at a number that does not decode, which
// happens only if the list changed since the scan. Returns false if an
// allocation fails.
static bool sort_numbers(tvixb_view list, tvixb_vector* vector,
                         const number** sorted, size_t* count) {
  vector->count = 0;
  *sorted = NULL;
  *count = 0;
  size_t most = 0, n = 0;
  for (size_t i = 0; i < list.size; i++) most += list.data[i] < 0x80;
  if (most > SIZE_MAX / 2 ||
      !tvixb_vector_reserve(vector, 2 * most, sizeof(number))) {
    return false;
  }
  if (!most) return true;  // vector->items may be NULL
  number *from = vector->items, *to = from + most;
  const uint8_t *p = list.data, *end = list.data + list.size;
  for (; n < most && p < end; n++) {
    p = tvixb_wire_varint(p, end, &from[n].value);
    if (!p) break;
    from[n].index = n;
  }
  for (size_t width = 1; width < n; width *= 2) {
    for (size_t begin = 0; begin < n; begin += 2 * width) {
      size_t middle = n - begin < width ? n : begin + width;
      size_t stop = n - begin < 2 * width ? n : begin + 2 * width;
      merge(from, to, begin, middle, stop);
    }
    number* swapped = from;
    from = to;
    to = swapped;
  }
  *sorted = from;
  *count = n;
  return true;
}

static void report_number(tvixb_report* report, tvixb_code code,
                          tvixb_path* path, uint64_t index, uint64_t value) {
  path->index[path->depth - 1] = index;
  tvixb_report_add(report, code, path, value, (tvixb_view){0});
}

static bool record_list(tvixb_scan* scan, tvixb_view list, bool unsorted) {
  if (!tvixb_vector_reserve(&scan->packed, 1, sizeof(tvixb_packed_list))) {
    scan->out_of_memory = true;
    return false;
  }
  tvixb_packed_list* lists = scan->packed.items;
  lists[scan->packed.count++] = (tvixb_packed_list){
      .begin = (size_t)(list.data - scan->data),
      .size = list.size,
      .unsorted = unsorted,
      .path = scan->path,
  };
  return true;
}

bool tvixb_packed_scan(tvixb_scan* scan, const tvixb_field* field,
                       tvixb_view list, unsigned depth) {
  const uint8_t *p = list.data, *end = list.data + list.size;
  uint64_t value, before = 0;
  uint64_t limit = scan->counts[field->limit];
  scan->path.depth = depth + 1;
  bool unsorted = false, has_equals = false;
  for (uint64_t index = 0; p < end; index++, before = value) {
    p = tvixb_scan_number(p, end, &value);
    if (!p) return false;
    if (index && value < before && !unsorted) {
      unsorted = true;
      report_number(scan->report, TVIXB_CODE_NOT_SORTED, &scan->path, index,
                    value);
    }
    has_equals |= index && value == before;
    if ((value >= limit && limit != TVIXB_ANY) ||
        !tvixb_rule_allows_number(field->rule, value)) {
      report_number(scan->report, field->rule->code, &scan->path, index, value);
    }
  }
  return !(unsorted || has_equals) || record_list(scan, list, unsorted);
}

static void report_duplicates(const number* numbers, size_t count,
                              tvixb_path* path, tvixb_report* report) {
  for (size_t i = 1; i < count; i++) {
    if (numbers[i - 1].value != numbers[i].value) continue;
    report_number(report, TVIXB_CODE_DUPLICATE, path, numbers[i].index,
                  numbers[i].value);
  }
}

// Makes the scan refer to a copy of the message in the arena. Returns the copy;
// NULL if the allocation fails.
static uint8_t* copy_message(tvixb_scan* scan, tvixb_arena* arena) {
  size_t size = (size_t)(scan->end - scan->data);
  uint8_t* copy = tvixb_arena_take(arena, size);
  if (!copy) return NULL;
  memcpy(copy, scan->data, size);
  scan->data = copy;
  scan->end = copy + size;
  return copy;
}

bool tvixb_packed_order(tvixb_scan* scan, tvixb_vector* numbers,
                        tvixb_arena* arena, tvixb_report* report) {
  tvixb_packed_list* lists = scan->packed.items;
  uint8_t* copy = NULL;
  for (size_t i = 0; i < scan->packed.count; i++) {
    bool sort =
        lists[i].unsorted && arena && report->total == report->not_sorted;
    if (sort && !copy && !(copy = copy_message(scan, arena))) return false;
    tvixb_view list = {scan->data + lists[i].begin, lists[i].size};
    const number* sorted;
    size_t count;
    if (!sort_numbers(list, numbers, &sorted, &count)) return false;
    report_duplicates(sorted, count, &lists[i].path, report);
    if (!sort) continue;
    // Shortest varints are not longer than the original ones.
    uint8_t* out = copy + lists[i].begin;
    for (size_t j = 0; j < count; j++) {
      out = tvixb_wire_put_varint(out, sorted[j].value);
    }
  }
  return true;
}
