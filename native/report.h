// SPDX-License-Identifier: MIT
//
// Collects the violations of a batch, at most so many a message, in the order
// of the path, and counts all of them.
#ifndef TVIXB_REPORT_H
#define TVIXB_REPORT_H

#include "memory.h"
#include "schema.h"
#include "tvix_build.h"
#include "view.h"

// Where in a message: fields from the root, each with its index in a list.
typedef struct tvixb_path {
  unsigned depth;
  uint8_t field[TVIXB_DEPTH_MAX];
  uint64_t index[TVIXB_DEPTH_MAX];  // TVIXB_NO_INDEX: not an element
} tvixb_path;

#define TVIXB_NO_INDEX UINT64_MAX

typedef struct tvixb_report {
  tvixb_vector violations;  // tvixb_violation
  tvixb_vector by_message;  // tvixb_violations_of
  uint32_t limit;
  // Of the message at hand:
  uint64_t message;
  size_t first;
  uint64_t total;
  uint64_t not_sorted;  // how many of them are TVIXB_CODE_NOT_SORTED
  bool heap;            // they came in no order: the last one is on top
  bool out_of_memory;
} tvixb_report;

// Forgets all messages.
void tvixb_report_clear(tvixb_report* report);

// Begins a message, or begins it again: what was added to it is dropped.
void tvixb_report_begin(tvixb_report* report, uint64_t message);

// Adds a violation to the message at hand; sets report->out_of_memory if it
// cannot. `number` is as in tvixb_violation; `value` is what violates the rule,
// its beginning is copied.
void tvixb_report_add(tvixb_report* report, tvixb_code code,
                      const tvixb_path* path, uint64_t number,
                      tvixb_view value);

// Counts violations that are not worth keeping: `more` of them.
void tvixb_report_count(tvixb_report* report, uint64_t more);

// Ends the message at hand; sets report->out_of_memory if it cannot.
void tvixb_report_end(tvixb_report* report);

void tvixb_report_free(tvixb_report* report);

#endif  // TVIXB_REPORT_H
