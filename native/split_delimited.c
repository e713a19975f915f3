// SPDX-License-Identifier: MIT
//
// Finds the records of a size-delimited stream.
#include "tvix_build.h"
#include "wire.h"

tvixb_split_status tvixb_split_delimited(const uint8_t* data, size_t size,
                                         uint64_t* begins, uint64_t* ends,
                                         size_t capacity, size_t* count,
                                         size_t* consumed) {
  const uint8_t *p = data, *end = data + size;
  size_t found = 0;
  tvixb_split_status status = TVIXB_SPLIT_OK;
  while (found < capacity && p < end) {
    uint32_t length;
    const uint8_t* message = tvixb_wire_length(p, end, &length);
    if (!message) {
      // A length of fewer than 5 bytes may continue after the end.
      size_t left = (size_t)(end - p);
      bool cut = left < TVIXB_WIRE_SIZE_VARINT_MAX;
      for (size_t i = 0; cut && i < left; i++) cut = p[i] >= 0x80;
      if (!cut) status = TVIXB_SPLIT_BAD_LENGTH;
      break;
    }
    if (length > (size_t)(end - message)) break;
    begins[found] = (uint64_t)(message - data);
    p = message + length;
    ends[found++] = (uint64_t)(p - data);
  }
  *count = found;
  *consumed = (size_t)(p - data);
  return status;
}
