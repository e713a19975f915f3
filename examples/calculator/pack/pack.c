// SPDX-License-Identifier: MIT
#include "pack.h"

void pack(FILE* from, FILE* to) {
  int byte = getc(from);
  while (byte != EOF) {
    int next = getc(from);
    int length = 1;
    while (next == byte && length < 255) {
      ++length;
      next = getc(from);
    }
    putc(length, to);
    putc(byte, to);
    byte = next;
  }
}
