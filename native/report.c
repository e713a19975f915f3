// SPDX-License-Identifier: MIT
#include "report.h"

#include <assert.h>
#include <string.h>

static_assert(sizeof(tvixb_violation) == 64, "violations are kept by the 100s");

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
}

static tvixb_violation violation_at(const tvixb_path* path) {
  tvixb_violation violation = {.depth = (uint8_t)path->depth};
  unsigned indices = 0;
  for (unsigned i = 0; i < path->depth; i++) {
    violation.field[i] = path->field[i];
    if (path->index[i] != TVIXB_NO_INDEX) {
      assert(indices < sizeof violation.index / sizeof *violation.index);
      violation.indexed |= (uint8_t)(1u << i);
      violation.index[indices++] = path->index[i];
    }
  }
  return violation;
}

// Step by step along the path: field number, then index; a message before what
// is below it; at one place the order of the codes.
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

void tvixb_report_add(tvixb_report* report, tvixb_code code,
                      const tvixb_path* path, uint64_t found,
                      tvixb_view value) {
  report->total++;
  report->not_sorted += code == TVIXB_CODE_NOT_SORTED;
  if (!tvixb_vector_reserve(&report->violations, 1, sizeof(tvixb_violation))) {
    report->out_of_memory = true;
    return;
  }
  tvixb_violation violation = violation_at(path);
  violation.message = report->message;
  violation.code = (uint8_t)code;
  violation.found = found;
  size_t sample = value.size < sizeof violation.sample
                      ? value.size
                      : sizeof violation.sample;
  if (sample) memcpy(violation.sample, value.data, sample);
  violation.sample_size = (uint8_t)sample;

  // Stages add nearly in order, so an insertion rarely moves anything. A full
  // report drops its last violation for one that comes before it.
  tvixb_violation* first =
      (tvixb_violation*)report->violations.items + report->first;
  size_t kept = report->violations.count - report->first;
  if (kept == report->limit) {
    if (!comes_before(&violation, &first[kept - 1])) return;
    kept--;
  } else {
    report->violations.count++;
  }
  size_t place = kept;
  while (place > 0 && comes_before(&violation, &first[place - 1])) place--;
  memmove(first + place + 1, first + place, (kept - place) * sizeof *first);
  first[place] = violation;
}

void tvixb_report_count(tvixb_report* report, uint64_t more) {
  report->total += more;
}

void tvixb_report_end(tvixb_report* report) {
  if (report->total == 0) return;
  if (!tvixb_vector_reserve(&report->by_message, 1,
                            sizeof(tvixb_violations_of))) {
    report->out_of_memory = true;
    return;
  }
  tvixb_violations_of* entries = report->by_message.items;
  entries[report->by_message.count++] = (tvixb_violations_of){
      .message = report->message,
      .first = report->first,
      .kept = report->violations.count - report->first,
      .total = report->total,
  };
  report->total = 0;
}

void tvixb_report_free(tvixb_report* report) {
  tvixb_vector_free(&report->violations);
  tvixb_vector_free(&report->by_message);
}
