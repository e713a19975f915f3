// SPDX-License-Identifier: MIT
#include "utf8.h"

#include <string.h>

// Returns the length of the well-formed sequence at p; 0 if there is none.
// Follows table 3-7 of the Unicode Standard: only the range of the second byte
// varies.
static size_t sequence(const uint8_t* p, size_t left) {
  uint8_t lead = p[0];
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  size_t size = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  if (left < size) return 0;
  uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  if (p[1] < low || p[1] > high) return 0;
  for (size_t i = 2; i < size; i++) {
    if ((p[i] & 0xc0) != 0x80) return 0;
  }
  return size;
}

size_t tvixb_utf8_valid(const uint8_t* data, size_t size) {
  size_t i = 0;
  while (i < size) {
    uint64_t word;
    if (size - i >= sizeof word) {
      memcpy(&word, data + i, sizeof word);
      if ((word & 0x8080808080808080u) == 0) {
        i += sizeof word;
        continue;
      }
    }
    size_t length = sequence(data + i, size - i);
    if (length == 0) return i;
    i += length;
  }
  return size;
}
