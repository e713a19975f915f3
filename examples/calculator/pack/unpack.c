// SPDX-License-Identifier: MIT
#include "pack.h"

int unpack(FILE* from, FILE* to) {
  for (int length = getc(from); length != EOF; length = getc(from)) {
    int byte = getc(from);
    if (byte == EOF) return -1;
    while (length-- > 0) putc(byte, to);
  }
  return 0;
}
