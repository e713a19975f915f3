// SPDX-License-Identifier: MIT
//
// Skips fields of any wire type.
#include "wire.h"

static const uint8_t* skip_scalar(const uint8_t* p, const uint8_t* end,
                                  uint32_t tag) {
  size_t left = (size_t)(end - p);
  uint64_t value;
  uint32_t length;
  switch (tag & 7) {
    case TVIXB_WIRE_VARINT:
      return tvixb_wire_varint(p, end, &value);
    case TVIXB_WIRE_FIXED64:
      return left < 8 ? NULL : p + 8;
    case TVIXB_WIRE_FIXED32:
      return left < 4 ? NULL : p + 4;
    case TVIXB_WIRE_LENGTH:
      p = tvixb_wire_length(p, end, &length);
      return p && length <= (size_t)(end - p) ? p + length : NULL;
    default:
      return NULL;
  }
}

const uint8_t* tvixb_wire_skip(const uint8_t* p, const uint8_t* end,
                               uint32_t tag, unsigned depth,
                               const uint8_t** stop) {
  uint32_t open[TVIXB_WIRE_DEPTH_MAX];  // field numbers of the open groups
  unsigned opened = 0;
  for (;;) {
    unsigned wire = tag & 7;
    *stop = p;
    if (wire == TVIXB_WIRE_GROUP) {
      if (opened == depth || opened == TVIXB_WIRE_DEPTH_MAX) return NULL;
      open[opened++] = tag >> 3;
    } else if (wire == TVIXB_WIRE_GROUP_END) {
      if (opened == 0 || open[opened - 1] != tag >> 3) return NULL;
      opened--;
    } else {
      p = skip_scalar(p, end, tag);
      if (!p) return NULL;
    }
    if (opened == 0) return p;
    *stop = p;
    // Not tvixb_wire_tag: in a group, upb accepts field number 0.
    p = tvixb_wire_size_varint(p, end, UINT32_MAX, &tag);
    if (!p) return NULL;
  }
}
