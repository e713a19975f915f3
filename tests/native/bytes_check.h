// SPDX-License-Identifier: MIT
//
// Compares tvixb_bytes_find with a loop: one special byte at every place of
// values of every length, in memory that ends with the value.
#ifndef TVIXB_TESTS_BYTES_CHECK_H
#define TVIXB_TESTS_BYTES_CHECK_H

#include <assert.h>
#include <stdlib.h>

#include "bytes.h"

static unsigned find(const uint8_t* data, size_t size, uint8_t byte) {
  unsigned found = 0;
  for (size_t i = 0; i < size; i++) {
    if (data[i] == 0) found |= TVIXB_BYTES_NUL;
    if (data[i] == byte) found |= TVIXB_BYTES_BYTE;
    if (data[i] >= 0x80) found |= TVIXB_BYTES_HIGH;
  }
  return found;
}

static void check_find(const uint8_t* data, size_t size, uint8_t byte) {
  unsigned expected = find(data, size, byte);
  for (unsigned wanted = 0; wanted < 8; wanted++) {
    unsigned found = tvixb_bytes_find(data, size, wanted, byte);
    assert((found & wanted) == (expected & wanted));
    assert((found & ~expected) == 0);
  }
}

static void check_bytes(void) {
  static const uint8_t fills[] = {'a', 1, 0x7f, '.', '0', 0xff};
  // Bytes that are searched for, and those that differ from them in one bit.
  static const uint8_t special[] = {0,    1,   2,    4,    8,   16,  32,  64,
                                    128,  129, 0x7f, 0xff, '/', '.', '-', '+',
                                    '\'', '=', '<',  '?',  '9', '5', 'o', 0xaf};
  for (size_t size = 0; size <= 140; size++) {
    uint8_t* data = malloc(size ? size : 1);
    for (size_t fill = 0; fill < sizeof fills; fill++) {
      for (size_t i = 0; i < size; i++) data[i] = fills[fill];
      check_find(data, size, '/');
      for (size_t place = 0; place < size; place++) {
        for (size_t i = 0; i < sizeof special; i++) {
          data[place] = special[i];
          check_find(data, size, '/');
          check_find(data, size, '=');
        }
        data[place] = fills[fill];
      }
    }
    free(data);
  }
}

#endif  // TVIXB_TESTS_BYTES_CHECK_H
