// SPDX-License-Identifier: MIT
#include "encode.h"

#include <string.h>

static void encode_list(const tvixb_scan* scan, const tvixb_order* order,
                        const tvixb_list* list, uint8_t* encoded) {
  const tvixb_element* elements = scan->elements.items;
  const tvixb_order_key* keys = order->keys.items;
  size_t last = list->first + list->count - 1;
  uint8_t* out = encoded + elements[list->first].begin;
  for (size_t i = list->first; i <= last; i++) {
    size_t element = keys[i].element;
    uint64_t begin = elements[element].begin;
    uint64_t end = element == last ? list->end : elements[element + 1].begin;
    memcpy(out, scan->data + begin, (size_t)(end - begin));
    out += end - begin;
  }
}

void tvixb_encode(const tvixb_scan* scan, const tvixb_order* order,
                  const tvixb_kind* kind, tvixb_view bytes, uint8_t* encoded) {
  memcpy(encoded, bytes.data, bytes.size);
  for (unsigned i = 0; i < kind->list_count; i++) {
    const tvixb_list* list = &scan->lists[i];
    if (list->unsorted) encode_list(scan, order, list, encoded);
  }
}
