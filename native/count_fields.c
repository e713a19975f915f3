// SPDX-License-Identifier: MIT
//
// Counts the fields of a message without reading their values.
#include "tvix_build.h"
#include "wire.h"

uint64_t tvixb_count_fields(const uint8_t* data, size_t size, uint32_t number) {
  const uint8_t *p = data, *end = data + size, *stop;
  uint64_t count = 0;
  while (p < end) {
    uint32_t tag;
    p = tvixb_wire_tag(p, end, &tag);
    if (p) p = tvixb_wire_skip(p, end, tag, TVIXB_WIRE_DEPTH_MAX, &stop);
    if (!p) break;
    count += tag >> 3 == number;
  }
  return count;
}
