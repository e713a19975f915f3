// SPDX-License-Identifier: MIT
#include "encode.h"

#include <string.h>

// Elements lie anywhere in a large message, so they are fetched in advance.
#define PREFETCH_DISTANCE 6

// Takes the next piece of an encoding; `end` is where its message ends.
typedef void put_function(void* state, const uint8_t* data, size_t size,
                          const uint8_t* end);

static inline uint64_t list_begin(const tvixb_scan* scan,
                                  const tvixb_list* list) {
  return ((const tvixb_element*)scan->elements.items)[list->first].begin;
}

static inline void encode_list(const tvixb_scan* scan, const tvixb_order* order,
                               const tvixb_list* list, put_function* put,
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
    put(state, scan->data + begin, (size_t)(end - begin), scan->end);
  }
}

static inline __attribute__((always_inline)) void encode(
    const tvixb_scan* scan, const tvixb_order* order, const tvixb_kind* kind,
    put_function* put, void* state) {
  const uint8_t* done = scan->data;
  for (unsigned i = 0; i < kind->list_count; i++) {
    const tvixb_list* list = &scan->lists[i];
    if (!list->unsorted) continue;
    const uint8_t* begin = scan->data + list_begin(scan, list);
    put(state, done, (size_t)(begin - done), scan->end);
    encode_list(scan, order, list, put, state);
    done = scan->data + list->end;
  }
  put(state, done, (size_t)(scan->end - done), scan->end);
}

// Copies in whole blocks, as fast as it gets for the sizes that most have.
static inline void copy(uint8_t* to, const uint8_t* data, size_t size,
                        const uint8_t* end) {
  enum { BLOCK = TVIXB_ENCODE_SLACK };
  if (__builtin_expect((size_t)(end - data) < size + BLOCK, 0)) {
    if (size) memcpy(to, data, size);
    return;
  }
  for (size_t done = 0; done < size; done += BLOCK) {
    memcpy(to + done, data + done, BLOCK);
  }
}

static inline void put_in_memory(void* state, const uint8_t* data, size_t size,
                                 const uint8_t* end) {
  uint8_t** at = state;
  copy(*at, data, size, end);
  *at += size;
}

void tvixb_encode(const tvixb_scan* scan, const tvixb_order* order,
                  const tvixb_kind* kind, uint8_t* encoded) {
  encode(scan, order, kind, put_in_memory, &encoded);
}

static void put_in_stream(void* state, const uint8_t* data, size_t size,
                          const uint8_t* end) {
  tvixb_hash_stream* stream = state;
  if (sizeof stream->buffer - stream->used > size + TVIXB_ENCODE_SLACK) {
    copy(stream->buffer + stream->used, data, size, end);
    stream->used += size;
  } else {
    tvixb_hash_stream_put(stream, data, size);
  }
}

void tvixb_encode_stream(const tvixb_scan* scan, const tvixb_order* order,
                         const tvixb_kind* kind, tvixb_hash_stream* stream) {
  encode(scan, order, kind, put_in_stream, stream);
}
