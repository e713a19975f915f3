// SPDX-License-Identifier: MIT
//
// The protobuf wire format: varints, tags, lengths and skipping, with exactly
// the limits of upb. Knows no schema.
#ifndef TVIXB_WIRE_H
#define TVIXB_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  TVIXB_WIRE_VARINT = 0,
  TVIXB_WIRE_FIXED64 = 1,
  TVIXB_WIRE_LENGTH = 2,
  TVIXB_WIRE_GROUP = 3,
  TVIXB_WIRE_GROUP_END = 4,
  TVIXB_WIRE_FIXED32 = 5,
};

// Messages and groups may nest this deep below the root.
#define TVIXB_WIRE_DEPTH_MAX 100

// Longest varint of a tag or a length, and of a value.
#define TVIXB_WIRE_SIZE_VARINT_MAX 5
#define TVIXB_WIRE_VARINT_MAX 10

// Reads a varint of at most 10 bytes; bits above the 64th are dropped, as upb
// drops them. Returns what follows it, NULL if it is cut or longer.
static inline const uint8_t* tvixb_wire_varint(const uint8_t* p,
                                               const uint8_t* end,
                                               uint64_t* value) {
  uint64_t result = 0;
  for (unsigned i = 0; i < TVIXB_WIRE_VARINT_MAX; i++) {
    if (p + i >= end) return NULL;
    result |= (uint64_t)(p[i] & 0x7f) << (7 * i);
    if (p[i] < 0x80) {
      *value = result;
      return p + i + 1;
    }
  }
  return NULL;
}

// Reads a varint of at most 5 bytes and at most `maximum`, as tags and lengths
// are. Returns what follows it, NULL if it is cut, longer or larger.
static inline const uint8_t* tvixb_wire_size_varint(const uint8_t* p,
                                                    const uint8_t* end,
                                                    uint32_t maximum,
                                                    uint32_t* value) {
  if (p < end && *p < 0x80) {
    *value = *p;
    return p + 1;
  }
  uint64_t result = 0;
  for (unsigned i = 0; i < TVIXB_WIRE_SIZE_VARINT_MAX; i++) {
    if (p + i >= end) return NULL;
    result |= (uint64_t)(p[i] & 0x7f) << (7 * i);
    if (p[i] < 0x80) {
      if (result > maximum) return NULL;
      *value = (uint32_t)result;
      return p + i + 1;
    }
  }
  return NULL;
}

// Reads a tag (number << 3 | wire type). Field number 0 is no tag.
static inline const uint8_t* tvixb_wire_tag(const uint8_t* p,
                                            const uint8_t* end, uint32_t* tag) {
  p = tvixb_wire_size_varint(p, end, UINT32_MAX, tag);
  return p && *tag >> 3 ? p : NULL;
}

// Reads a length, at most 2^31 - 1. It may still reach beyond the end.
static inline const uint8_t* tvixb_wire_length(const uint8_t* p,
                                               const uint8_t* end,
                                               uint32_t* length) {
  return tvixb_wire_size_varint(p, end, INT32_MAX, length);
}

// Bytes of the shortest varint.
static inline unsigned tvixb_wire_varint_size(uint64_t value) {
  unsigned size = 1;
  for (; value >= 0x80; value >>= 7) size++;
  return size;
}

// Writes the shortest varint, up to 10 bytes. Returns what follows it.
static inline uint8_t* tvixb_wire_put_varint(uint8_t* p, uint64_t value) {
  for (; value >= 0x80; value >>= 7) *p++ = (uint8_t)(value | 0x80);
  *p++ = (uint8_t)value;
  return p;
}

// Skips the value of a field whose tag was read; `depth` is how many groups may
// still open. Returns what follows it; NULL if it does not decode, *stop being
// where.
const uint8_t* tvixb_wire_skip(const uint8_t* p, const uint8_t* end,
                               uint32_t tag, unsigned depth,
                               const uint8_t** stop);

#endif  // TVIXB_WIRE_H
