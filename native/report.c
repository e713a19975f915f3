// SPDX-License-Identifier: MIT
#include "report.h"

#include <assert.h>
#include <string.h>

static_assert(sizeof(tvixb_violation) == 64, "hundreds of them are kept");
static_assert(sizeof((tvixb_violation*)0)->field == TVIXB_DEPTH_MAX,
              "a violation has the longest path");

void tvixb_report_clear(tvixb_report* report) {
  report->violations.count = 0;
  report->by_message.count = 0;
  report->total = 0;
  report->out_of_memory = false;
}

void tvixb_report_begin(tvixb_report* report, uint64_t message) {
  if (report->total) report->violations.count = report->first;
  report->message = message;
  report->first = report->violations.count;
  report->total = 0;
  report->not_sorted = 0;
  report->heap = false;
}

// Appends a path to that of a violation. `indices` is the number of indices so
// far.
static void append_path(tvixb_violation* violation, const tvixb_path* path,
                        unsigned* indices) {
  for (unsigned i = 0; i < path->depth; i++) {
    assert(violation->depth < TVIXB_DEPTH_MAX);
    if (path->index[i] != TVIXB_NO_INDEX) {
      assert(*indices < sizeof violation->index / sizeof *violation->index);
      violation->indexed |= (uint8_t)(1u << violation->depth);
      violation->index[(*indices)++] = path->index[i];
    }
    violation->field[violation->depth++] = path->field[i];
  }
}

// Returns whether `a` is before `b` in path order: at each step by field
// number, then by index; a message before its fields; at the same path by code.
static bool comes_before(const tvixb_violation* a, const tvixb_violation* b) {
  unsigned index = 0;
  for (unsigned i = 0; i < a->depth && i < b->depth; i++) {
    if (a->field[i] != b->field[i]) return a->field[i] < b->field[i];
    bool a_indexed = a->indexed >> i & 1;
    bool b_indexed = b->indexed >> i & 1;
    if (a_indexed != b_indexed) return b_indexed;
    if (!a_indexed) continue;
    if (a->index[index] != b->index[index]) {
      return a->index[index] < b->index[index];
    }
    index++;
  }
  if (a->depth != b->depth) return a->depth < b->depth;
  return a->code < b->code;
}

// Replaces the top of a heap.
static void replace_top(tvixb_violation* heap, size_t count,
                        tvixb_violation violation) {
  size_t place = 0;
  for (size_t below = 1; below < count; below = 2 * place + 1) {
    if (below + 1 < count && comes_before(&heap[below], &heap[below + 1])) {
      below++;
    }
    if (!comes_before(&violation, &heap[below])) break;
    heap[place] = heap[below];
    place = below;
  }
  heap[place] = violation;
}

// Adds a violation to a heap of `count` violations.
static void push(tvixb_violation* heap, size_t count,
                 tvixb_violation violation) {
  size_t place = count;
  while (place > 0 && comes_before(&heap[(place - 1) / 2], &violation)) {
    heap[place] = heap[(place - 1) / 2];
    place = (place - 1) / 2;
  }
  heap[place] = violation;
}

static void sort_heap(tvixb_violation* heap, size_t count) {
  while (count > 1) {
    tvixb_violation last = heap[0];
    count--;
    replace_top(heap, count, heap[count]);
    heap[count] = last;
  }
}

// Makes a heap of sorted violations by reversing their order.
static void make_heap(tvixb_violation* sorted, size_t count) {
  for (size_t i = 0; i < count / 2; i++) {
    tvixb_violation other = sorted[i];
    sorted[i] = sorted[count - 1 - i];
    sorted[count - 1 - i] = other;
  }
}

void tvixb_report_add(tvixb_report* report, tvixb_code code,
                      const tvixb_path* path, uint64_t number,
                      tvixb_view value) {
  tvixb_report_count(report, 1);
  report->not_sorted += code == TVIXB_CODE_NOT_SORTED;
  if (!tvixb_vector_reserve(&report->violations, 1, sizeof(tvixb_violation))) {
    report->out_of_memory = true;
    return;
  }
  tvixb_violation violation = {0};
  unsigned indices = 0;
  append_path(&violation, &report->outer, &indices);
  append_path(&violation, path, &indices);
  violation.message = report->message;
  violation.variant = report->variant;
  violation.code = (uint8_t)code;
  violation.number = number;
  size_t sample = value.size < sizeof violation.sample
                      ? value.size
                      : sizeof violation.sample;
  if (sample) memcpy(violation.sample, value.data, sample);
  violation.sample_size = (uint8_t)sample;

  tvixb_violation* kept =
      (tvixb_violation*)report->violations.items + report->first;
  size_t count = report->violations.count - report->first;
  bool full = count == report->limit;
  if (!report->heap) {
    if (count == 0 || !comes_before(&violation, &kept[count - 1])) {
      if (full) return;
      kept[count] = violation;
      report->violations.count++;
      return;
    }
    make_heap(kept, count);
    report->heap = true;
  }
  if (!full) {
    push(kept, count, violation);
    report->violations.count++;
  } else if (comes_before(&violation, &kept[0])) {
    replace_top(kept, count, violation);
  }
}

void tvixb_report_count(tvixb_report* report, uint64_t more) {
  report->total =
      more > UINT64_MAX - report->total ? UINT64_MAX : report->total + more;
}

void tvixb_report_end(tvixb_report* report) {
  if (report->total == 0) return;
  size_t kept = report->violations.count - report->first;
  if (report->heap) {
    sort_heap((tvixb_violation*)report->violations.items + report->first, kept);
  }
  if (!tvixb_vector_reserve(&report->by_message, 1,
                            sizeof(tvixb_violations_of))) {
    report->out_of_memory = true;
    return;
  }
  tvixb_violations_of* entries = report->by_message.items;
  entries[report->by_message.count++] = (tvixb_violations_of){
      .message = report->message,
      .first = report->first,
      .kept = kept,
      .total = report->total,
  };
  report->total = 0;
}

void tvixb_violations_rebase(tvixb_violations_of* entries, size_t count,
                             uint64_t messages, uint64_t violations) {
  for (size_t i = 0; i < count; i++) {
    entries[i].message += messages;
    entries[i].first += violations;
  }
}

void tvixb_report_trim(tvixb_report* report) {
  tvixb_vector_trim(&report->violations);
  tvixb_vector_trim(&report->by_message);
}

void tvixb_report_free(tvixb_report* report) {
  tvixb_vector_free(&report->violations);
  tvixb_vector_free(&report->by_message);
}
