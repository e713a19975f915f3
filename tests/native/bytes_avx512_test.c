// SPDX-License-Identifier: MIT
//
// bytes_test, compiled for AVX-512.
#include "cpu.h"

TVIXB_REST_AVX512

#include <stdio.h>

#include "bytes_check.h"

int main(void) {
  if (tvixb_cpu_best() != TVIXB_CPU_AVX512) {
    puts("skipped: this CPU has no AVX-512");
    return 0;
  }
  check_bytes();
  puts("ok");
  return 0;
}
