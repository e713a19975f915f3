// SPDX-License-Identifier: MIT
#include "encode.h"

// Elements lie anywhere in a large message, so they are fetched in advance.
#define PREFETCH_DISTANCE 6

static uint64_t list_begin(const tvixb_scan* scan, const tvixb_list* list) {
  return ((const tvixb_element*)scan->elements.items)[list->first].begin;
}

static void encode_list(const tvixb_scan* scan, const tvixb_order* order,
                        const tvixb_list* list, tvixb_encode_put* put,
                        void* state) {
  const tvixb_element* elements = scan->elements.items;
  const tvixb_sort_key* keys = order->keys.items;
  size_t last = list->first + list->count - 1;
  for (size_t i = list->first; i <= last; i++) {
    if (i + 2 * PREFETCH_DISTANCE <= last) {
      __builtin_prefetch(&elements[keys[i + 2 * PREFETCH_DISTANCE].element]);
      const uint8_t* soon =
          scan->data + elements[keys[i + PREFETCH_DISTANCE].element].begin;
      __builtin_prefetch(soon);
      __builtin_prefetch(soon + 64);
    }
    size_t element = (size_t)keys[i].element;
    uint64_t begin = elements[element].begin;
    uint64_t end = element == last ? list->end : elements[element + 1].begin;
    put(state, scan->data + begin, (size_t)(end - begin));
  }
}

void tvixb_encode(const tvixb_scan* scan, const tvixb_order* order,
                  const tvixb_kind* kind, tvixb_view bytes,
                  tvixb_encode_put* put, void* state) {
  uint64_t done = 0;
  for (unsigned i = 0; i < kind->list_count; i++) {
    const tvixb_list* list = &scan->lists[i];
    if (!list->unsorted) continue;
    put(state, bytes.data + done, (size_t)(list_begin(scan, list) - done));
    encode_list(scan, order, list, put, state);
    done = list->end;
  }
  put(state, bytes.data + done, bytes.size - (size_t)done);
}
