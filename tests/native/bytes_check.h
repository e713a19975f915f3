// SPDX-License-Identifier: MIT
//
// Compares tvixb_bytes_find with a loop: one special byte at every place of
// values of every length, in memory that ends with the value, and followed by
// special bytes.
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

static TVIXB_TARGET void check_find(const uint8_t* data, size_t size,
                                    const uint8_t* end, uint8_t byte) {
  unsigned expected = find(data, size, byte);
  for (unsigned wanted = 0; wanted < 8; wanted++) {
    unsigned found = tvixb_bytes_find(data, size, end, wanted, byte);
    assert((found & wanted) == (expected & wanted));
    assert((found & ~expected) == 0);
  }
}

// Checks values of this size before `after` bytes.
static void check_size(size_t size, size_t after) {
  static const uint8_t fills[] = {'a', 1, 0x7f, '.', '0', 0xff};
  // Bytes that are searched for, and those that differ from them in one bit.
  static const uint8_t special[] = {0,    '/', '=', 0xff, 1,   2,   4,    8,
                                    16,   32,  64,  128,  129, '.', '-',  '+',
                                    '\'', '<', '?', '9',  '5', 'o', 0x7f, 0xaf};
  uint8_t* data = calloc(size + after ? size + after : 1, 1);
  const uint8_t* end = data + size + after;
  for (size_t i = 0; i < after; i++) {
    data[size + i] = special[i % sizeof special];
  }
  for (size_t fill = 0; fill < sizeof fills; fill++) {
    for (size_t i = 0; i < size; i++) data[i] = fills[fill];
    check_find(data, size, end, '/');
    for (size_t place = 0; place < size; place++) {
      for (size_t i = 0; i < sizeof special; i++) {
        data[place] = special[i];
        check_find(data, size, end, '/');
        check_find(data, size, end, '=');
      }
      data[place] = fills[fill];
    }
  }
  free(data);
}

static void check_bytes(void) {
  for (size_t size = 0; size <= 140; size++) {
    check_size(size, 0);
    if (size <= 70) check_size(size, 40);
  }
  for (size_t after = 1; after < 40; after++) check_size(after % 34, after);
}

#endif  // TVIXB_TESTS_BYTES_CHECK_H
