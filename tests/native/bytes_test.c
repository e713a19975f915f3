// SPDX-License-Identifier: MIT
//
// tvixb_bytes_find against a loop: one special byte at every place of values of
// every length, in memory that ends with the value.
#include "bytes.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned find(const uint8_t* data, size_t size, uint8_t byte) {
  unsigned found = 0;
  for (size_t i = 0; i < size; i++) {
    if (data[i] == 0) found |= TVIXB_BYTES_NUL;
    if (data[i] == byte) found |= TVIXB_BYTES_BYTE;
    if (data[i] >= 0x80) found |= TVIXB_BYTES_HIGH;
  }
  return found;
}

int main(void) {
  static const uint8_t fills[] = {'a', 1, 0x7f, '.', '0', 0xff};
  for (size_t size = 0; size <= 140; size++) {
    uint8_t* data = malloc(size ? size : 1);
    for (size_t fill = 0; fill < sizeof fills; fill++) {
      for (size_t i = 0; i < size; i++) data[i] = fills[fill];
      assert(tvixb_bytes_find(data, size, '/') == find(data, size, '/'));
      for (size_t place = 0; place < size; place++) {
        for (unsigned value = 0; value < 256; value++) {
          data[place] = (uint8_t)value;
          assert(tvixb_bytes_find(data, size, '/') == find(data, size, '/'));
          assert(tvixb_bytes_find(data, size, '=') == find(data, size, '='));
        }
        data[place] = fills[fill];
      }
    }
    free(data);
  }
  puts("ok");
  return 0;
}
