// SPDX-License-Identifier: MIT
#include "packed.h"

#include <string.h>

#include "schema_rules.h"
#include "wire.h"

// A number, and which one of its list it is.
typedef struct number {
  uint64_t value;
  uint64_t index;
} number;

static void report(tvixb_scan* scan, tvixb_code code, unsigned depth,
                   uint64_t index, uint64_t value) {
  scan->path.index[depth] = index;
  scan->path.depth = depth + 1;
  tvixb_report_add(scan->report, code, &scan->path, value, (tvixb_view){0});
}

// Merges from[begin .. middle) and from[middle .. end), which are sorted.
static void merge(const number* from, number* to, size_t begin, size_t middle,
                  size_t end) {
  size_t left = begin, right = middle;
  for (size_t i = begin; i < end; i++) {
    bool take_left = right == end ||
                     (left < middle && from[left].value <= from[right].value);
    to[i] = take_left ? from[left++] : from[right++];
  }
}

// Sets *sorted to the *count numbers of a list in ascending order, equal ones
// as received, in memory of the scan. Leaves out a number that does not decode
// and what follows it, which happens only if the list changed since the scan.
// False if memory is out.
static bool sort_numbers(tvixb_scan* scan, tvixb_view list,
                         const number** sorted, size_t* count) {
  tvixb_vector* vector = &scan->numbers;
  vector->count = 0;
  *sorted = NULL;
  *count = 0;
  size_t most = 0, n = 0;
  for (size_t i = 0; i < list.size; i++) most += list.data[i] < 0x80;
  if (most > SIZE_MAX / 2 ||
      !tvixb_vector_reserve(vector, 2 * most, sizeof(number))) {
    return false;
  }
  if (!most) return true;  // There may be no memory to point to.
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

static bool report_duplicates(tvixb_scan* scan, tvixb_view list,
                              unsigned depth) {
  const number* numbers;
  size_t count;
  if (!sort_numbers(scan, list, &numbers, &count)) return false;
  for (size_t i = 1; i < count; i++) {
    if (numbers[i - 1].value != numbers[i].value) continue;
    report(scan, TVIXB_CODE_DUPLICATE, depth, numbers[i].index,
           numbers[i].value);
  }
  return true;
}

static bool note_unsorted(tvixb_scan* scan, tvixb_view list) {
  if (!tvixb_vector_reserve(&scan->packed, 1, sizeof list)) return false;
  ((tvixb_view*)scan->packed.items)[scan->packed.count++] = list;
  return true;
}

bool tvixb_packed_scan(tvixb_scan* scan, const tvixb_field* field,
                       tvixb_view list, unsigned depth) {
  const uint8_t *p = list.data, *end = list.data + list.size;
  uint64_t value, before = 0;
  uint64_t limit = scan->counts[field->limit];
  bool unsorted = false, has_equals = false;
  for (uint64_t index = 0; p < end; index++, before = value) {
    p = tvixb_scan_number(p, end, &value);
    if (!p) return false;
    if (index && value < before && !unsorted) {
      unsorted = true;
      report(scan, TVIXB_CODE_NOT_SORTED, depth, index, value);
    }
    has_equals |= index && value == before;
    if (value >= limit && limit != TVIXB_ANY) {
      report(scan, tvixb_rules[field->rule].code, depth, index, value);
    }
  }
  if ((unsorted && !note_unsorted(scan, list)) ||
      ((unsorted || has_equals) && !report_duplicates(scan, list, depth))) {
    scan->out_of_memory = true;
    return false;
  }
  return true;
}

bool tvixb_packed_sort(tvixb_scan* scan, tvixb_arena* arena,
                       tvixb_view* bytes) {
  uint8_t* copy = tvixb_arena_take(arena, bytes->size);
  if (!copy) return false;
  memcpy(copy, bytes->data, bytes->size);
  const tvixb_view* lists = scan->packed.items;
  for (size_t i = 0; i < scan->packed.count; i++) {
    uint8_t* out = copy + (lists[i].data - scan->data);
    const number* numbers;
    size_t count;
    if (!sort_numbers(scan, (tvixb_view){out, lists[i].size}, &numbers,
                      &count)) {
      return false;
    }
    // Shortest varints take no more room than what was read.
    for (size_t j = 0; j < count; j++) {
      out = tvixb_wire_put_varint(out, numbers[j].value);
    }
  }
  bytes->data = scan->data = copy;
  scan->end = copy + bytes->size;
  return true;
}
