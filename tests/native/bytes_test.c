// SPDX-License-Identifier: MIT
#include <stdio.h>

#include "bytes_check.h"

int main(void) {
  check_bytes();
  puts("ok");
  return 0;
}
