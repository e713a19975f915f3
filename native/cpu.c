// SPDX-License-Identifier: MIT
#include "cpu.h"

#ifdef TVIXB_TEST_BUILD
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
  if (__builtin_cpu_supports("avx2")) return TVIXB_CPU_AVX2;
#endif
  return TVIXB_CPU_PLAIN;
}

tvixb_cpu_level tvixb_cpu_best(void) {
  tvixb_cpu_level best = level_of_this_cpu();
#ifdef TVIXB_TEST_BUILD
  const char* forced = getenv("TVIXB_CPU_LEVEL");
  if (forced && strcmp(forced, "plain") == 0) return TVIXB_CPU_PLAIN;
  if (forced && strcmp(forced, "avx2") == 0 && best > TVIXB_CPU_AVX2) {
    return TVIXB_CPU_AVX2;
  }
#endif
  return best;
}
