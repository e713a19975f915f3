// SPDX-License-Identifier: MIT
#include "cpu.h"

#ifdef TVIXB_TEST_BUILD
#include <stdlib.h>
#include <string.h>
#endif

tvixb_cpu_level tvixb_cpu_best(void) {
#ifdef TVIXB_TEST_BUILD
  const char* level = getenv("TVIXB_CPU_LEVEL");
  if (level && strcmp(level, "plain") == 0) return TVIXB_CPU_PLAIN;
#endif
#ifdef TVIXB_HAVE_AVX512
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("bmi2")) {
    return TVIXB_CPU_AVX512;
  }
#endif
  return TVIXB_CPU_PLAIN;
}
