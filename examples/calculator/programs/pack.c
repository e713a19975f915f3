// SPDX-License-Identifier: MIT
// Encodes stdin.
#include "pack.h"

int main(void) {
  pack(stdin, stdout);
  return 0;
}
