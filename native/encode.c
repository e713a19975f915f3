// SPDX-License-Identifier: MIT
#include "encode.h"

#include <string.h>

#include "wire.h"

// Elements are at random places in a large message, so they are prefetched this
// many elements ahead.
#define PREFETCH_DISTANCE 16

// Appends a piece to an encoding. `end` is the end of the message.
typedef void put_function(void* state, const uint8_t* data, size_t size,
                          const uint8_t* end);

// Limits a piece to the bytes that are left of the message's size. The lengths
// of elements are read again here and may have changed since the scan.
static inline size_t limit_piece(size_t size, size_t* left) {
  if (size > *left) size = *left;
  *left -= size;
  return size;
}

// Returns the element of a sort key, with its tag and length. Returns an empty
// view if the length does not decode or exceeds the message, because the bytes
// changed since the scan.
static inline tvixb_view element_of(const tvixb_scan* scan,
                                    const tvixb_sort_key* key) {
  const uint8_t* begin = scan->data + tvixb_sort_key_begin(scan, key);
  uint32_t size;
  const uint8_t* value = tvixb_wire_length(begin + 1, scan->end, &size);
  if (!value || size > (size_t)(scan->end - value)) {
    return (tvixb_view){begin, 0};
  }
  return (tvixb_view){begin, (size_t)(value - begin) + size};
}

static inline void encode_list(const tvixb_scan* scan,
                               const tvixb_sort_key* keys, size_t count,
                               put_function* put, void* state) {
  for (size_t i = 0; i < count; i++) {
    if (i + PREFETCH_DISTANCE < count) {
      const uint8_t* soon =
          scan->data + tvixb_sort_key_begin(scan, &keys[i + PREFETCH_DISTANCE]);
      __builtin_prefetch(soon);
      __builtin_prefetch(soon + 64);
    }
    tvixb_view element = element_of(scan, &keys[i]);
    put(state, element.data, element.size, scan->end);
  }
}

static inline __attribute__((always_inline)) void encode(
    const tvixb_scan* scan, const tvixb_order* order, const tvixb_kind* kind,
    put_function* put, void* state) {
  const tvixb_element* elements = scan->elements.items;
  const tvixb_sort_key* keys = order->keys.items;
  const uint8_t* done = scan->data;
  for (unsigned i = 0; i < kind->list_count; i++) {
    const tvixb_list* list = &scan->lists[i];
    if (!list->unsorted) continue;
    const uint8_t* begin = scan->data + elements[list->first].begin;
    put(state, done, (size_t)(begin - done), scan->end);
    encode_list(scan, keys + list->first, list->count, put, state);
    done = scan->data + list->end;
  }
  put(state, done, (size_t)(scan->end - done), scan->end);
}

// Copies whole blocks. The last block ends with the piece.
static inline void copy(uint8_t* to, const uint8_t* data, size_t size,
                        const uint8_t* end) {
  enum { BLOCK = TVIXB_ENCODE_SLACK };
  if (size > BLOCK) {
    for (size_t done = 0; done < size - BLOCK; done += BLOCK) {
      memcpy(to + done, data + done, BLOCK);
    }
    memcpy(to + size - BLOCK, data + size - BLOCK, BLOCK);
  } else if (end - data >= BLOCK) {
    memcpy(to, data, BLOCK);
  } else if (size) {
    memcpy(to, data, size);
  }
}

typedef struct memory {
  uint8_t* at;
  size_t left;
} memory;

static inline void put_in_memory(void* state, const uint8_t* data, size_t size,
                                 const uint8_t* end) {
  memory* out = state;
  size = limit_piece(size, &out->left);
  copy(out->at, data, size, end);
  out->at += size;
}

size_t tvixb_encode(const tvixb_scan* scan, const tvixb_order* order,
                    const tvixb_kind* kind, uint8_t* encoded) {
  memory out = {encoded, (size_t)(scan->end - scan->data)};
  encode(scan, order, kind, put_in_memory, &out);
  return (size_t)(out.at - encoded);
}

typedef struct streamed {
  tvixb_hash_stream* stream;
  size_t left;
} streamed;

static void put_in_stream(void* state, const uint8_t* data, size_t size,
                          const uint8_t* end) {
  streamed* out = state;
  tvixb_hash_stream* stream = out->stream;
  size = limit_piece(size, &out->left);
  if (sizeof stream->buffer - stream->used > size + TVIXB_ENCODE_SLACK) {
    copy(stream->buffer + stream->used, data, size, end);
    stream->used += size;
  } else {
    tvixb_hash_stream_put(stream, data, size);
  }
}

void tvixb_encode_stream(const tvixb_scan* scan, const tvixb_order* order,
                         const tvixb_kind* kind, tvixb_hash_stream* stream) {
  streamed out = {stream, (size_t)(scan->end - scan->data)};
  encode(scan, order, kind, put_in_stream, &out);
}
