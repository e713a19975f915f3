// SPDX-License-Identifier: MIT
//
// Counts and finds the fields of a message without reading their values.
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

void tvixb_find_fields(const uint8_t* data, size_t size, uint32_t number,
                       uint64_t* begin, uint64_t* end) {
  const uint8_t *p = data, *limit = data + size, *stop;
  const uint8_t* first = NULL;
  while (p < limit) {
    uint32_t tag;
    const uint8_t* next = tvixb_wire_tag(p, limit, &tag);
    if (next) {
      next = tvixb_wire_skip(next, limit, tag, TVIXB_WIRE_DEPTH_MAX, &stop);
    }
    if (!next || tag >> 3 > number) break;
    if (!first && tag >> 3 == number) first = p;
    p = next;
  }
  *begin = (uint64_t)((first ? first : p) - data);
  *end = (uint64_t)(p - data);
}
