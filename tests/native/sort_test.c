// SPDX-License-Identifier: MIT
//
// Compares sorted lists, of every size class and with difficult keys, with
// qsort.
#include "sort.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "level.h"

#define KEY_SIZE_MAX 64

static uint64_t seed = 1;

static uint64_t random64(void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed;
}

typedef enum shape {
  RANDOM,
  NIX,            // 32 characters of Nix's base 32
  SHORT,          // up to 8 bytes, including zeros
  COMMON_PREFIX,  // 50 common bytes, then 8 random ones
  LATE,           // the first 32 bits have only two values
  EQUAL,
  FEW,  // 10 different keys
  ONE,  // the first byte differs only in one key
  ASCENDING,
  DESCENDING,
  SHAPES,
} shape;

static size_t make_key(shape shape, size_t i, size_t count, uint8_t* key) {
  size_t size = 16 + random64() % 16;
  memset(key, 'k', KEY_SIZE_MAX);
  for (size_t j = 0; j < size; j++) key[j] = (uint8_t)random64();
  switch (shape) {
    case RANDOM:
      return size;
    case NIX:
      for (size_t j = 0; j < 32; j++) {
        key[j] = (uint8_t)"0123456789abcdfghijklmnpqrsvwxyz"[random64() % 32];
      }
      return 40;
    case SHORT:
      for (size_t j = 0; j < 8; j++) key[j] = (uint8_t)(random64() % 2);
      return random64() % 9;
    case COMMON_PREFIX:
      memset(key, 'p', 50);
      return 58;
    case LATE:
      memset(key, (int)(random64() % 2), 6);
      return size;
    case EQUAL:
      memset(key, 'e', 20);
      return 20;
    case FEW:
      memset(key, (int)(random64() % 10), 20);
      return 20;
    case ONE:
      key[0] = i + 1 < count ? 'k' : 'a';
      return size;
    default: {
      size_t place = shape == ASCENDING ? i : count - i;
      for (size_t j = 0; j < 8; j++) {
        key[j] = (uint8_t)(place >> (56 - 8 * j));
      }
      return 8;
    }
  }
}

static const tvixb_scan* compared;

static int compare(const void* a, const void* b) {
  uint32_t i = *(const uint32_t*)a, j = *(const uint32_t*)b;
  int order = tvixb_view_compare(tvixb_scan_key(compared, i),
                                 tvixb_scan_key(compared, j));
  return order ? order : (i > j) - (i < j);
}

// Sorts the last `count` elements of a scan that has more.
static void check(shape shape, size_t count, tvixb_sort_memory* memory) {
  const size_t first = 3, all = first + count;
  uint8_t* data = malloc(all * KEY_SIZE_MAX);
  tvixb_element* elements = calloc(all, sizeof *elements);
  for (size_t i = 0; i < all; i++) {
    uint8_t* key = data + i * KEY_SIZE_MAX;
    tvixb_view view = {key, make_key(shape, i, all, key)};
    elements[i] = (tvixb_element){.begin = i * KEY_SIZE_MAX,
                                  .prefix = tvixb_view_prefix(view),
                                  .key_size = (uint32_t)view.size};
  }
  tvixb_scan scan = {.data = data,
                     .end = data + all * KEY_SIZE_MAX,
                     .elements = {elements, all, all}};
  tvixb_sort_key* keys = malloc(all * sizeof *keys);
  assert(tvixb_sort_elements(&scan, first, count, keys, memory));
  uint32_t* expected = malloc(all * sizeof *expected);
  for (size_t i = 0; i < count; i++) expected[i] = (uint32_t)(first + i);
  compared = &scan;
  qsort(expected, count, sizeof *expected, compare);
  for (size_t i = 0; i < count; i++) {
    assert(keys[i].element == expected[i]);
    assert(tvixb_sort_key_begin(&scan, &keys[i]) ==
           elements[expected[i]].begin);
    // Equal keys must have equal prefixes.
    if (i) {
      tvixb_view key = tvixb_scan_key(&scan, keys[i].element);
      tvixb_view before = tvixb_scan_key(&scan, keys[i - 1].element);
      assert(keys[i].prefix == keys[i - 1].prefix ||
             tvixb_view_compare(before, key) != 0);
    }
  }
  free(expected);
  free(keys);
  free(elements);
  free(data);
}

int main(void) {
  if (level_is_missing()) return 0;
  tvixb_sort_memory memory = {0};
  const size_t large[] = {200, 1000, 5000, 32767, 32768, 40000, 100000};
  for (int shape = 0; shape < SHAPES; shape++) {
    for (size_t count = 0; count < 140; count++) {
      for (int round = 0; round < 5; round++) check(shape, count, &memory);
    }
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
      check(shape, large[i], &memory);
    }
  }
  tvixb_sort_memory_free(&memory);
  puts("ok");
  return 0;
}
