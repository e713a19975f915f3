// SPDX-License-Identifier: MIT
//
// bytes_test, compiled for AVX-512.
#define TVIXB_FOR_AVX512
#include <stdio.h>

#include "cpu.h"

#ifdef TVIXB_HAVE_AVX512
#include "bytes_check.h"
#endif

int main(void) {
#ifdef TVIXB_HAVE_AVX512
  if (tvixb_cpu_best() >= TVIXB_CPU_AVX512) {
    check_bytes();
    puts("ok");
    return 0;
  }
#endif
  puts("skipped: this CPU has no AVX-512");
  return 0;
}
