// SPDX-License-Identifier: MIT
#include "memory.h"

#include <stdlib.h>

// Size of an ordinary block, enough for the encodings of a window. A larger
// piece gets its own block.
#define BLOCK_SIZE ((size_t)512 * 1024)

bool tvixb_vector_grow(tvixb_vector* vector, size_t more, size_t item_size) {
  size_t limit = SIZE_MAX / 2 / item_size;
  if (more > limit || vector->count > limit - more) return false;
  size_t needed = vector->count + more;
  size_t capacity = vector->capacity < limit / 2 ? vector->capacity * 2 : limit;
  if (capacity < 64) capacity = 64;
  if (capacity < needed) capacity = needed;
  void* items = realloc(vector->items, capacity * item_size);
  if (!items) return false;
  vector->items = items;
  vector->capacity = capacity;
  vector->size = capacity * item_size;
  return true;
}

void tvixb_vector_free(tvixb_vector* vector) {
  free(vector->items);
  *vector = (tvixb_vector){0};
}

struct tvixb_arena_block {
  tvixb_arena_block* next;
  size_t used;
  size_t capacity;
  uint8_t bytes[];
};

uint8_t* tvixb_arena_take(tvixb_arena* arena, size_t size) {
  tvixb_arena_block* block = arena->blocks;
  if (!block || size > block->capacity - block->used) {
    size_t capacity = size > BLOCK_SIZE ? size : BLOCK_SIZE;
    if (capacity > SIZE_MAX - sizeof *block) return NULL;
    block = malloc(sizeof *block + capacity);
    if (!block) return NULL;
    *block = (tvixb_arena_block){.next = arena->blocks, .capacity = capacity};
    arena->blocks = block;
  }
  uint8_t* piece = block->bytes + block->used;
  block->used += size;
  return piece;
}

void tvixb_arena_reset(tvixb_arena* arena) {
  tvixb_arena_block* kept = NULL;
  while (arena->blocks) {
    tvixb_arena_block* block = arena->blocks;
    arena->blocks = block->next;
    if (!kept && block->capacity == BLOCK_SIZE) {
      kept = block;
    } else {
      free(block);
    }
  }
  if (kept) {
    kept->next = NULL;
    kept->used = 0;
  }
  arena->blocks = kept;
}

void tvixb_arena_free(tvixb_arena* arena) {
  tvixb_arena_reset(arena);
  free(arena->blocks);
  arena->blocks = NULL;
}
