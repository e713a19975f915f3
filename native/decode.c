// SPDX-License-Identifier: MIT
#include "decode.h"

#include <assert.h>

#include "utf8.h"
#include "wire.h"

// Returns whether a packed list of numbers decodes.
static bool check_packed(const uint8_t* p, const uint8_t* end,
                         const uint8_t** stop) {
  uint64_t value;
  while (p < end) {
    *stop = p;
    p = tvixb_wire_varint(p, end, &value);
    if (!p) return false;
  }
  return true;
}

// The recursion follows the tables of the schema, so its depth is at most
// TVIXB_DEPTH_MAX. Groups are always unknown fields, which are skipped without
// recursion.
static bool check(const tvixb_message* message, const uint8_t* p,
                  const uint8_t* end, unsigned depth, const uint8_t** stop) {
  while (p < end) {
    *stop = p;
    uint32_t tag;
    const uint8_t* value = tvixb_wire_tag(p, end, &tag);
    if (!value) return false;
    if ((tag & 7) == TVIXB_WIRE_GROUP_END) return false;
    const tvixb_field* field = tvixb_message_field(message, tag);
    p = tvixb_wire_skip(value, end, tag, depth, stop);
    if (!p) return false;
    if (!field || (tag & 7) != TVIXB_WIRE_LENGTH) continue;

    uint32_t length = 0;
    value = tvixb_wire_length(value, end, &length);
    assert(value);
    if (field->type == TVIXB_TYPE_STRING) {
      size_t valid = tvixb_utf8_valid(value, length);
      *stop = value + valid;
      if (valid < length) return false;
    } else if (field->type == TVIXB_TYPE_PACKED) {
      if (!check_packed(value, p, stop)) return false;
    } else if (field->type == TVIXB_TYPE_MESSAGE && !field->encoded) {
      if (!check(field->message, value, p, depth - 1, stop)) return false;
    }
  }
  return true;
}

bool tvixb_decode_check(const tvixb_message* message, tvixb_view bytes,
                        size_t* stop) {
  const uint8_t* place = bytes.data;
  bool decodes = check(message, bytes.data, bytes.data + bytes.size,
                       TVIXB_WIRE_DEPTH_MAX, &place);
  *stop = (size_t)(place - bytes.data);
  return decodes;
}

bool tvixb_decode_check_encoded(const tvixb_message* message, tvixb_view bytes,
                                unsigned* number, size_t* stop) {
  const uint8_t *p = bytes.data, *end = bytes.data + bytes.size, *place;
  while (p < end) {
    uint32_t tag, length;
    const uint8_t* value = tvixb_wire_tag(p, end, &tag);
    p = value ? tvixb_wire_skip(value, end, tag, TVIXB_WIRE_DEPTH_MAX, &place)
              : NULL;
    if (!p) return true;
    const tvixb_field* field = tvixb_message_field(message, tag);
    if (!field || !field->encoded) continue;
    value = tvixb_wire_length(value, end, &length);
    *number = tag >> 3;
    if (value && !tvixb_decode_check(field->message,
                                     (tvixb_view){value, length}, stop)) {
      return false;
    }
  }
  return true;
}
