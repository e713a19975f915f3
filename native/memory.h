// SPDX-License-Identifier: MIT
//
// The memory of a context: vectors that keep their capacity, and an arena whose
// blocks stay where they are. Every allocation of the library is in memory.c,
// but for the context itself.
#ifndef TVIXB_MEMORY_H
#define TVIXB_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// An array that grows. Its items move when it does.
typedef struct tvixb_vector {
  void* items;
  size_t count;
  size_t capacity;
} tvixb_vector;

// The slow part of tvixb_vector_reserve.
bool tvixb_vector_grow(tvixb_vector* vector, size_t more, size_t item_size);

// Makes room for `more` further items of item_size bytes. False if memory is
// out; the vector is as it was then.
static inline bool tvixb_vector_reserve(tvixb_vector* vector, size_t more,
                                        size_t item_size) {
  return more <= vector->capacity - vector->count ||
         tvixb_vector_grow(vector, more, item_size);
}

void tvixb_vector_free(tvixb_vector* vector);

typedef struct tvixb_arena_block tvixb_arena_block;

// Bytes that stay where they are until the arena is reset.
typedef struct tvixb_arena {
  tvixb_arena_block* blocks;  // newest first
} tvixb_arena;

// Takes `size` bytes, uninitialized; NULL if memory is out.
uint8_t* tvixb_arena_take(tvixb_arena* arena, size_t size);

// Takes everything back; keeps one block of ordinary size.
void tvixb_arena_reset(tvixb_arena* arena);

void tvixb_arena_free(tvixb_arena* arena);

#endif  // TVIXB_MEMORY_H
