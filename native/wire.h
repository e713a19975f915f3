// SPDX-License-Identifier: MIT
//
// Reads and writes the protobuf wire format: varints, tags, lengths and
// skipping, with the same limits as upb. Independent of schemas.
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

// Maximum nesting depth of messages and groups below the root.
#define TVIXB_WIRE_DEPTH_MAX 100

// Maximum length in bytes of the varint of a tag or length, and of a value.
#define TVIXB_WIRE_SIZE_VARINT_MAX 5
#define TVIXB_WIRE_VARINT_MAX 10

// Reads a varint of at most 10 bytes. Drops bits above the 64th, as upb does.
// Returns the end of the varint; NULL if it is incomplete or longer.
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

// Reads a varint of at most 5 bytes and at most `maximum`, for tags and
// lengths. Returns the end of the varint; NULL if it is incomplete, longer or
// greater.
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

// Reads a tag (number << 3 | wire type). Returns its end; NULL if the varint is
// bad or the field number is 0.
static inline const uint8_t* tvixb_wire_tag(const uint8_t* p,
                                            const uint8_t* end, uint32_t* tag) {
  p = tvixb_wire_size_varint(p, end, UINT32_MAX, tag);
  return p && *tag >> 3 ? p : NULL;
}

// Reads a length of at most 2^31 - 1. Returns its end; NULL if the varint is
// bad. Does not check whether that many bytes follow.
static inline const uint8_t* tvixb_wire_length(const uint8_t* p,
                                               const uint8_t* end,
                                               uint32_t* length) {
  return tvixb_wire_size_varint(p, end, INT32_MAX, length);
}

// Returns the size of the shortest varint in bytes.
static inline unsigned tvixb_wire_varint_size(uint64_t value) {
  unsigned size = 1;
  for (; value >= 0x80; value >>= 7) size++;
  return size;
}

// Writes the shortest varint, up to 10 bytes. Returns its end.
static inline uint8_t* tvixb_wire_put_varint(uint8_t* p, uint64_t value) {
  for (; value >= 0x80; value >>= 7) *p++ = (uint8_t)(value | 0x80);
  *p++ = (uint8_t)value;
  return p;
}

// Skips the value of a field whose tag was read. `depth` is the number of
// groups that may still begin. Returns the end of the value; NULL if it does
// not decode, with *stop set to the place.
const uint8_t* tvixb_wire_skip(const uint8_t* p, const uint8_t* end,
                               uint32_t tag, unsigned depth,
                               const uint8_t** stop);

#endif  // TVIXB_WIRE_H
