// SPDX-License-Identifier: MIT
//
// Validates the ranges that callers pass.
#ifndef TVIXB_RANGES_H
#define TVIXB_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "view.h"

// Returns whether an array of offsets is aligned as uint64_t.
static inline bool tvixb_ranges_aligned(const uint64_t* offsets) {
  return (uintptr_t)offsets % _Alignof(uint64_t) == 0;
}

// Returns whether begins[i] <= ends[i] <= size for all n ranges, and both
// arrays are aligned.
static inline bool tvixb_ranges_fit(const uint64_t* begins,
                                    const uint64_t* ends, size_t n,
                                    size_t size) {
  if (!tvixb_ranges_aligned(begins) || !tvixb_ranges_aligned(ends)) {
    return false;
  }
  for (size_t i = 0; i < n; i++) {
    if (begins[i] > ends[i] || ends[i] > size) return false;
  }
  return true;
}

// Returns the bytes of a range. The data of an empty view is not NULL, because
// tvixb_hash_many skips views whose data is NULL. Returns an empty view if the
// range does not fit, because another thread changed the arrays since
// tvixb_ranges_fit.
static inline tvixb_view tvixb_ranges_view(const uint8_t* data, size_t size,
                                           uint64_t begin, uint64_t end) {
  static const uint8_t nothing[1];
  if (begin >= end || end > size) return (tvixb_view){nothing, 0};
  return (tvixb_view){data + begin, (size_t)(end - begin)};
}

#endif  // TVIXB_RANGES_H
