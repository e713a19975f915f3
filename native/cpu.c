// SPDX-License-Identifier: MIT
#include "cpu.h"

#ifdef TVIXB_TEST_BUILD
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#endif

static tvixb_cpu_level level_of_this_cpu(void) {
#ifdef TVIXB_HAVE_AVX512
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("bmi2")) {
    return TVIXB_CPU_AVX512;
  }
#endif
#ifdef TVIXB_HAVE_AVX2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) {
    return TVIXB_CPU_AVX2;
  }
#endif
#ifdef TVIXB_HAVE_NEON
  return TVIXB_CPU_NEON;
#endif
  return TVIXB_CPU_PLAIN;
}

// Written before there are threads.
static tvixb_cpu_level level;

#ifdef TVIXB_TEST_BUILD
void tvixb_cpu_lower(const char* name) {
  level = level_of_this_cpu();
  if (!name || strcmp(name, "best") == 0 || strcmp(name, "avx512") == 0 ||
      strcmp(name, "neon") == 0) {
    return;
  }
  if (strcmp(name, "plain") == 0) {
    level = TVIXB_CPU_PLAIN;
    return;
  }
  if (strcmp(name, "avx2") == 0) {
    if (level == TVIXB_CPU_AVX512) level = TVIXB_CPU_AVX2;
    return;
  }
  fprintf(stderr, "TVIXB_CPU_LEVEL: expected plain, avx2, avx512, neon or ");
  fprintf(stderr, "best, found %s\n", name);
  abort();
}
#endif

__attribute__((constructor)) static void find_level(void) {
#ifdef TVIXB_HAVE_AVX2
  __builtin_cpu_init();
#endif
#ifdef TVIXB_TEST_BUILD
  tvixb_cpu_lower(getenv("TVIXB_CPU_LEVEL"));
#else
  level = level_of_this_cpu();
#endif
}

tvixb_cpu_level tvixb_cpu_best(void) { return level; }
