// SPDX-License-Identifier: MIT
//
// Collects the violations of a batch in path order, up to a limit for each
// message, and counts all of them.
#ifndef TVIXB_REPORT_H
#define TVIXB_REPORT_H

#include "memory.h"
#include "schema.h"
#include "tvix_build.h"
#include "view.h"

// A path in a message: the fields from the root, each with its index if it is a
// list element.
typedef struct tvixb_path {
  unsigned depth;
  uint8_t field[TVIXB_DEPTH_MAX];
  uint64_t index[TVIXB_DEPTH_MAX];  // TVIXB_NO_INDEX: not a list element
} tvixb_path;

#define TVIXB_NO_INDEX UINT64_MAX

typedef struct tvixb_report {
  tvixb_vector violations;  // tvixb_violation
  tvixb_vector by_message;  // tvixb_violations_of
  uint32_t limit;
  // Of the current message:
  uint64_t message;
  uint8_t variant;   // as in tvixb_violation
  tvixb_path outer;  // path before those of violations, of at most one field
  size_t first;
  uint64_t total;
  uint64_t not_sorted;  // number of them that are TVIXB_CODE_NOT_SORTED
  bool heap;  // the violations kept are a heap, the last in path order on top
  bool out_of_memory;
} tvixb_report;

// Removes all messages.
void tvixb_report_clear(tvixb_report* report);

// Begins a message. If the current message was not ended, drops its violations.
void tvixb_report_begin(tvixb_report* report, uint64_t message);

// Adds a violation to the current message. `number` is as in tvixb_violation.
// `value` is the value or key that violates the rule; its first bytes are
// copied. Sets report->out_of_memory if an allocation fails.
void tvixb_report_add(tvixb_report* report, tvixb_code code,
                      const tvixb_path* path, uint64_t number,
                      tvixb_view value);

// Counts `more` violations of the current message without keeping them.
void tvixb_report_count(tvixb_report* report, uint64_t more);

// Ends the current message. Sets report->out_of_memory if an allocation fails.
void tvixb_report_end(tvixb_report* report);

// Frees vectors that are too large to keep for the next call.
void tvixb_report_trim(tvixb_report* report);

// Frees the memory of a report.
void tvixb_report_free(tvixb_report* report);

#endif  // TVIXB_REPORT_H
