// SPDX-License-Identifier: MIT
//
// The level of CPUs that a test build is told to test.
#ifndef TVIXB_TESTS_LEVEL_H
#define TVIXB_TESTS_LEVEL_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"

// Whether this CPU has not what TVIXB_CPU_LEVEL names; says so.
static inline bool level_is_missing(void) {
  const char* level = getenv("TVIXB_CPU_LEVEL");
  if (!level || strcmp(level, "avx2") != 0) return false;
  if (tvixb_cpu_best() == TVIXB_CPU_AVX2) return false;
  puts("skipped: this CPU has no AVX2");
  return true;
}

#endif  // TVIXB_TESTS_LEVEL_H
