// SPDX-License-Identifier: MIT
//
// Lists of keys that are parts of the input, against qsort: the first bytes say
// how many there are, what all of them begin with, and where each one begins.
#define _GNU_SOURCE
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "sort.h"

#define HEAD 6
#define KEY_SIZE 64

static const tvixb_scan* compared;

static int compare(const void* a, const void* b) {
  uint32_t i = *(const uint32_t*)a, j = *(const uint32_t*)b;
  int order = tvixb_view_compare(tvixb_scan_key(compared, i),
                                 tvixb_scan_key(compared, j));
  return order ? order : (i > j) - (i < j);
}

static void check(const tvixb_scan* scan, size_t count,
                  const uint32_t* expected) {
  static tvixb_sort_memory memory;
  tvixb_sort_key* keys = malloc((count + 1) * sizeof *keys);
  assert(keys && tvixb_sort_elements(scan, 0, count, keys, &memory));
  for (size_t i = 0; i < count; i++) assert(keys[i].element == expected[i]);
  free(keys);
}

int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size) {
  if (size <= HEAD) return 0;
  size_t count = input[0] | (size_t)input[1] << 8;
  // Most lists are short, and of the long ones few are needed.
  if (input[2] % 64) count %= 300;
  size_t prefix = input[3] % (KEY_SIZE / 2), step = input[4], limit = input[5];
  const uint8_t* bytes = input + HEAD;
  size -= HEAD;
  uint8_t* data = calloc(count + 1, KEY_SIZE);
  tvixb_element* elements = calloc(count + 1, sizeof *elements);
  uint32_t* expected = calloc(count + 1, sizeof *expected);
  assert(data && elements && expected);
  for (size_t i = 0; i < count; i++) {
    uint8_t* key = data + i * KEY_SIZE;
    size_t own = bytes[i % size] % (limit % (KEY_SIZE / 2) + 1);
    for (size_t j = 0; j < own; j++) {
      key[prefix + j] = bytes[(i * step + j) % size];
    }
    tvixb_view view = {key, prefix + own};
    elements[i] = (tvixb_element){.begin = i * KEY_SIZE,
                                  .prefix = tvixb_view_prefix(view),
                                  .key_size = (uint32_t)view.size};
    expected[i] = (uint32_t)i;
  }
  tvixb_scan scan = {.data = data,
                     .end = data + count * KEY_SIZE,
                     .elements = {elements, count, count}};
  compared = &scan;
  qsort(expected, count, sizeof *expected, compare);
  check(&scan, count, expected);
  setenv("TVIXB_CPU_LEVEL", "plain", 1);
  check(&scan, count, expected);
  unsetenv("TVIXB_CPU_LEVEL");
  free(expected);
  free(elements);
  free(data);
  return 0;
}
