// SPDX-License-Identifier: MIT
//
// The CPU level that a test build tests.
#ifndef TVIXB_TESTS_LEVEL_H
#define TVIXB_TESTS_LEVEL_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"

// Returns whether this CPU lacks the level in TVIXB_CPU_LEVEL, and prints that.
static inline bool level_is_missing(void) {
  const char* level = getenv("TVIXB_CPU_LEVEL");
  if (!level || strcmp(level, "avx2") != 0) return false;
  if (tvixb_cpu_best() == TVIXB_CPU_AVX2) return false;
  puts("skipped: this CPU has no AVX2");
  return true;
}

#endif  // TVIXB_TESTS_LEVEL_H
