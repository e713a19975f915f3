// SPDX-License-Identifier: MIT
//
// Compares sorted lists with qsort. The keys are parts of the input, whose
// first bytes select their number, their common prefix and their places.
#define _GNU_SOURCE
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "guard.h"
#include "sort.h"

#define HEAD 5
#define COUNT 512  // a test build distributes 256 and more to buckets
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
  static uint8_t memory[COUNT * KEY_SIZE];
  static tvixb_element elements[COUNT];
  static uint32_t expected[COUNT];
  if (size <= HEAD) return 0;
  size_t count = (input[0] | (size_t)input[1] << 8) % COUNT;
  size_t prefix = input[2] % (KEY_SIZE / 2), step = input[3];
  size_t limit = input[4] % (KEY_SIZE / 2) + 1;
  const uint8_t* bytes = input + HEAD;
  size -= HEAD;
  size_t total = 0;
  for (size_t i = 0; i < count; i++) {
    uint8_t* key = memory + total;
    size_t own = bytes[i % size] % limit;
    memset(key, 0, prefix);
    for (size_t j = 0; j < own; j++) {
      key[prefix + j] = bytes[(i * step + j) % size];
    }
    tvixb_view view = {key, prefix + own};
    elements[i] = (tvixb_element){.begin = total,
                                  .prefix = tvixb_view_prefix(view),
                                  .key_size = (uint32_t)view.size};
    expected[i] = (uint32_t)i;
    total += view.size;
  }
  const uint8_t* data = guard_end(memory, total);
  tvixb_scan scan = {
      .data = data, .end = data + total, .elements = {elements, count, count}};
  compared = &scan;
  qsort(expected, count, sizeof *expected, compare);
  check(&scan, count, expected);
  tvixb_cpu_lower("plain");
  check(&scan, count, expected);
  tvixb_cpu_lower(NULL);
  return 0;
}
