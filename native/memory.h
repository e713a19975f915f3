// SPDX-License-Identifier: MIT
//
// The memory of a context: vectors that keep their capacity, and an arena whose
// pieces do not move. The library allocates memory only in memory.c, except for
// the context itself.
#ifndef TVIXB_MEMORY_H
#define TVIXB_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A growing array. Growing moves its items. Zero-initialize it before use.
typedef struct tvixb_vector {
  void* items;
  size_t count;
  size_t capacity;
  size_t size;  // of the capacity, in bytes
} tvixb_vector;

// Slow path of tvixb_vector_reserve.
bool tvixb_vector_grow(tvixb_vector* vector, size_t more, size_t item_size);

// Makes room for `more` additional items of item_size bytes. Returns false if
// the allocation fails; the vector is unchanged then.
static inline bool tvixb_vector_reserve(tvixb_vector* vector, size_t more,
                                        size_t item_size) {
  return more <= vector->capacity - vector->count ||
         tvixb_vector_grow(vector, more, item_size);
}

// Frees the items and makes the vector empty.
void tvixb_vector_free(tvixb_vector* vector);

// What a vector may keep from call to call, in bytes.
#define TVIXB_VECTOR_KEPT ((size_t)96 * 1024)

// Frees the items and makes the vector empty if it is larger than
// TVIXB_VECTOR_KEPT.
static inline void tvixb_vector_trim(tvixb_vector* vector) {
  if (vector->size > TVIXB_VECTOR_KEPT) tvixb_vector_free(vector);
}

typedef struct tvixb_arena_block tvixb_arena_block;

// An arena: pieces of memory that are valid until the arena is reset.
// Zero-initialize it before use.
typedef struct tvixb_arena {
  tvixb_arena_block* blocks;  // newest first
} tvixb_arena;

// Returns `size` uninitialized bytes, not aligned; NULL if the allocation
// fails.
uint8_t* tvixb_arena_take(tvixb_arena* arena, size_t size);

// Frees all pieces. Keeps one block of ordinary size for the next ones.
void tvixb_arena_reset(tvixb_arena* arena);

// Frees all memory of the arena, which may be used again.
void tvixb_arena_free(tvixb_arena* arena);

#endif  // TVIXB_MEMORY_H
