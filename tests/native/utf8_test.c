// SPDX-License-Identifier: MIT
//
// Compares tvixb_utf8_valid with an arithmetic decoder: every sequence of up to
// three bytes, and every sequence of four bytes around the limits.
#include "utf8.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

// Returns the length of the well-formed character at p; 0 if there is none.
static size_t decode(const uint8_t* p, size_t size) {
  static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (p[0] < 0x80) return 1;
  size_t length = p[0] >= 0xf8   ? 0
                  : p[0] >= 0xf0 ? 4
                  : p[0] >= 0xe0 ? 3
                  : p[0] >= 0xc0 ? 2
                                 : 0;
  if (length == 0 || length > size) return 0;
  uint32_t point = p[0] & (0x7fu >> length);
  for (size_t i = 1; i < length; i++) {
    if (p[i] >> 6 != 2) return 0;
    point = point << 6 | (p[i] & 0x3f);
  }
  bool surrogate = point >= 0xd800 && point <= 0xdfff;
  return point < smallest[length] || point > 0x10ffff || surrogate ? 0 : length;
}

static size_t valid_size(const uint8_t* p, size_t size) {
  size_t i = 0;
  while (i < size) {
    size_t length = decode(p + i, size - i);
    if (length == 0) break;
    i += length;
  }
  return i;
}

int main(void) {
  for (uint32_t value = 0; value < 1u << 24; value++) {
    const uint8_t bytes[3] = {(uint8_t)(value >> 16), (uint8_t)(value >> 8),
                              (uint8_t)value};
    assert(tvixb_utf8_valid(bytes, 3) == valid_size(bytes, 3));
  }
  for (uint32_t lead = 0xef; lead <= 0xf8; lead++) {
    for (uint32_t value = 0; value < 1u << 16; value++) {
      // The sequence at the end of texts of every length up to 12.
      uint8_t bytes[16];
      memset(bytes, 'a', sizeof bytes);
      size_t at = value % 13;
      bytes[at] = (uint8_t)lead;
      bytes[at + 1] = (uint8_t)(value >> 8);
      bytes[at + 2] = (uint8_t)value;
      bytes[at + 3] = (uint8_t)(value * 7);
      assert(tvixb_utf8_valid(bytes, at + 4) == valid_size(bytes, at + 4));
      bytes[at + 3] = 0x80;
      assert(tvixb_utf8_valid(bytes, at + 4) == valid_size(bytes, at + 4));
    }
  }
  puts("ok");
  return 0;
}
