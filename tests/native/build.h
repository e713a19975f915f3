// SPDX-License-Identifier: MIT
//
// Builds messages for tests.
#ifndef TVIXB_TESTS_BUILD_H
#define TVIXB_TESTS_BUILD_H

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "wire.h"

typedef struct buffer {
  uint8_t* data;
  size_t size;
  size_t capacity;
} buffer;

static inline void buffer_add(buffer* out, const void* data, size_t size) {
  if (size > out->capacity - out->size) {
    out->capacity = (out->size + size) * 2;
    out->data = realloc(out->data, out->capacity);
    assert(out->data);
  }
  if (size) memcpy(out->data + out->size, data, size);
  out->size += size;
}

static inline void buffer_varint(buffer* out, uint64_t value) {
  uint8_t bytes[TVIXB_WIRE_VARINT_MAX];
  buffer_add(out, bytes, (size_t)(tvixb_wire_put_varint(bytes, value) - bytes));
}

// Adds a field of wire type LENGTH.
static inline void buffer_field(buffer* out, unsigned number, const void* data,
                                size_t size) {
  buffer_varint(out, number << 3 | TVIXB_WIRE_LENGTH);
  buffer_varint(out, size);
  buffer_add(out, data, size);
}

static inline void buffer_text(buffer* out, unsigned number, const char* text) {
  buffer_field(out, number, text, strlen(text));
}

#endif  // TVIXB_TESTS_BUILD_H
