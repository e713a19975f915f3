// SPDX-License-Identifier: MIT
//
// The same as bytes_test, compiled for AVX-512.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,bmi2")
#endif
#include <stdio.h>

#include "bytes_check.h"
#include "cpu.h"

int main(void) {
  if (tvixb_cpu_best() != TVIXB_CPU_AVX512) {
    puts("skipped: no AVX-512 here");
    return 0;
  }
  check_bytes();
  puts("ok");
  return 0;
}
