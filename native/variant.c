// SPDX-License-Identifier: MIT
#include "variant.h"

#include "wire.h"

// Sets *value to the last value of a string, which is empty if it is absent.
// Returns false if the content does not decode.
static bool find_string(tvixb_view content, unsigned number,
                        tvixb_view* value) {
  const uint8_t *p = content.data, *end = content.data + content.size, *stop;
  *value = (tvixb_view){0};
  while (p < end) {
    uint32_t tag, length;
    const uint8_t* begin = tvixb_wire_tag(p, end, &tag);
    p = begin ? tvixb_wire_skip(begin, end, tag, TVIXB_WIRE_DEPTH_MAX, &stop)
              : NULL;
    if (!p) return false;
    if (tag != (number << 3 | TVIXB_WIRE_LENGTH)) continue;
    begin = tvixb_wire_length(begin, end, &length);
    if (!begin || length > (size_t)(end - begin)) return false;
    *value = (tvixb_view){begin, length};
  }
  return true;
}

uint8_t tvixb_variant_of(const tvixb_message* message, tvixb_view content) {
  tvixb_view value;
  if (!message->variants || !find_string(content, message->selector, &value)) {
    return 0;
  }
  for (uint8_t i = 0; message->variants[i].value; i++) {
    if (tvixb_view_is(value, message->variants[i].value)) {
      return (uint8_t)(i + 1);
    }
  }
  return 0;
}
