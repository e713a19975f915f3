// SPDX-License-Identifier: MIT
//
// bytes_test, compiled for AVX2.
#define TVIXB_FOR_AVX2
#include <stdio.h>

#include "cpu.h"

#ifdef TVIXB_HAVE_AVX2
#include "bytes_check.h"
#endif

int main(void) {
#ifdef TVIXB_HAVE_AVX2
  if (tvixb_cpu_best() >= TVIXB_CPU_AVX2) {
    check_bytes();
    puts("ok");
    return 0;
  }
#endif
  puts("skipped: this CPU has no AVX2");
  return 0;
}
