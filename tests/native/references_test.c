// SPDX-License-Identifier: MIT
//
// Compares the scanner with a plain search, on random needles and streams that
// are cut into random chunks.
#include "references.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS 20000
#define MAX_NEEDLES 12
#define MAX_NEEDLE 40
#define MAX_STREAM 300

static uint64_t state = 1;

static uint32_t draw(uint32_t limit) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(state >> 33) % limit;
}

static void fill(uint8_t* data, size_t size, uint32_t letters) {
  for (size_t i = 0; i < size; i++) data[i] = (uint8_t)draw(letters);
}

static int occurs(const uint8_t* data, size_t size, const uint8_t* needle,
                  size_t length) {
  for (size_t i = 0; i + length <= size; i++) {
    if (!memcmp(data + i, needle, length)) return 1;
  }
  return 0;
}

// Scans a stream in chunks. Each chunk is a copy of its exact size, so that a
// sanitizer finds reads beyond it.
static void scan(tvixb_references* scanner, const uint8_t* data, size_t size) {
  for (size_t begin = 0; begin < size;) {
    size_t chunk = draw(8) ? draw(60) : size;
    if (chunk > size - begin) chunk = size - begin;
    uint8_t* copy = malloc(chunk + !chunk);
    memcpy(copy, data + begin, chunk);
    tvixb_references_scan(scanner, copy, chunk);
    free(copy);
    begin += chunk;
  }
  tvixb_references_end_stream(scanner);
}

static void check_random(void) {
  uint8_t needles[MAX_NEEDLES * MAX_NEEDLE];
  uint64_t ends[MAX_NEEDLES];
  uint8_t streams[2][MAX_STREAM];
  size_t sizes[2];
  size_t n = draw(MAX_NEEDLES + 1), used = 0;
  uint32_t letters = draw(3) ? 2 : 256,
           fixed = draw(2) ? 0 : 1 + draw(MAX_NEEDLE);
  for (size_t i = 0; i < n; i++) {
    size_t size = fixed ? fixed : 1 + draw(draw(2) ? 3 : MAX_NEEDLE);
    fill(needles + used, size, letters);
    used += size;
    ends[i] = used;
  }
  for (int i = 0; i < 2; i++) {
    sizes[i] = draw(MAX_STREAM + 1);
    fill(streams[i], sizes[i], letters + draw(2) * 3);
    // Put needles, complete or cut off, at random places.
    for (size_t j = 0; j < n && sizes[i]; j++) {
      size_t begin = j ? (size_t)ends[j - 1] : 0, at = draw((uint32_t)sizes[i]);
      size_t size = (size_t)ends[j] - begin - draw(2);
      if (size > sizes[i] - at) size = sizes[i] - at;
      if (draw(2)) memcpy(streams[i] + at, needles + begin, size);
    }
  }
  tvixb_references* scanner = tvixb_references_new(needles, ends, n);
  assert(scanner);
  for (int i = 0; i < 2; i++) scan(scanner, streams[i], sizes[i]);
  const uint8_t* found = tvixb_references_found(scanner);
  for (size_t i = 0; i < n; i++) {
    size_t begin = i ? (size_t)ends[i - 1] : 0, size = (size_t)ends[i] - begin;
    int expected = occurs(streams[0], sizes[0], needles + begin, size) ||
                   occurs(streams[1], sizes[1], needles + begin, size);
    assert(found[i] == expected);
  }
  tvixb_references_free(scanner);
}

static void check_empty(void) {
  tvixb_references* scanner = tvixb_references_new(NULL, NULL, 0);
  assert(scanner);
  tvixb_references_scan(scanner, (const uint8_t*)"a", 1);
  tvixb_references_end_stream(scanner);
  tvixb_references_free(scanner);
  tvixb_references_free(NULL);
}

static int is_replaced(const uint8_t* old_data, const uint8_t* new_data,
                       uint64_t size, const uint8_t* pairs, uint64_t n,
                       size_t width) {
  const uint64_t begin = 0;
  uint8_t replaced;
  tvixb_references_replaced(old_data, &begin, new_data, &begin, &size, pairs,
                            &n, width, 1, &replaced);
  return replaced;
}

// Replaces some occurrences of random strings in a random text. The first byte
// of a string is nowhere else, so that occurrences do not overlap.
static void check_random_replaced(void) {
  enum { WIDTH = 4, PAIRS = 3 };
  uint8_t pairs[PAIRS * 2 * WIDTH], before[MAX_STREAM];
  size_t size = draw(MAX_STREAM);
  fill(pairs, sizeof pairs, 3);
  fill(before, size, 3);
  for (size_t i = 0; i < PAIRS * 2; i++)
    pairs[i * WIDTH] = (uint8_t)(3 + i / 2);
  for (size_t i = 0; i + WIDTH <= size; i += WIDTH + draw(9)) {
    memcpy(before + i, pairs + draw(PAIRS) * 2 * WIDTH, WIDTH);
  }
  uint8_t *old_data = malloc(size + !size), *new_data = malloc(size + !size);
  memcpy(old_data, before, size);
  memcpy(new_data, before, size);
  for (size_t i = 0; i + WIDTH <= size; i++) {
    if (before[i] < 3 || draw(2)) continue;
    const uint8_t* pair = pairs + (before[i] - 3) * 2 * WIDTH;
    assert(!memcmp(before + i, pair, WIDTH));
    memcpy(new_data + i, pair + WIDTH, WIDTH);
  }
  assert(is_replaced(old_data, new_data, size, pairs, PAIRS, WIDTH));
  assert(is_replaced(old_data, new_data, size, pairs, 0, WIDTH) ==
         !memcmp(old_data, new_data, size));
  if (size) {
    new_data[draw((uint32_t)size)] = 9;
    assert(!is_replaced(old_data, new_data, size, pairs, PAIRS, WIDTH));
  }
  free(old_data);
  free(new_data);
}

static int is_text_replaced(const char* before, const char* after,
                            const char* pairs) {
  return is_replaced((const uint8_t*)before, (const uint8_t*)after,
                     strlen(before), (const uint8_t*)pairs, strlen(pairs) / 4,
                     2);
}

static void check_many_replaced(void) {
  const uint64_t old_begins[] = {0, 2, 2}, new_begins[] = {2, 0, 0};
  const uint64_t sizes[] = {2, 2, 2}, pair_ends[] = {1, 1, 2};
  uint8_t replaced[3];
  tvixb_references_replaced(
      (const uint8_t*)"abcd", old_begins, (const uint8_t*)"zwxy", new_begins,
      sizes, (const uint8_t*)"abxycdzw", pair_ends, 2, 3, replaced);
  assert(replaced[0] && !replaced[1] && replaced[2]);
}

static void check_replaced(void) {
  assert(is_text_replaced("", "", ""));
  assert(is_text_replaced("1ab2", "1xb2", "abxb"));
  assert(is_text_replaced("abbc", "xbbz", "abxbbcbz"));
  assert(!is_text_replaced("abc", "xbz", "abxbbcbz"));  // They overlap.
  assert(!is_text_replaced("1a", "1x", "abxb"));        // It is not complete.
  assert(!is_text_replaced("b1", "x1", "abax"));
}

// Compares tvixb_references_replace with a search at each byte.
static void check_random_replace(void) {
  enum { MAX_PAIRS = 4, MAX_WIDTH = 12 };
  uint8_t pairs[MAX_PAIRS * 2 * MAX_WIDTH], expected[MAX_STREAM];
  size_t size = draw(MAX_STREAM), n = draw(MAX_PAIRS + 1);
  size_t width = 4 + draw(MAX_WIDTH - 3);
  uint8_t* data = malloc(size + !size);
  fill(pairs, sizeof pairs, 2);
  fill(expected, size, 2);
  if (size) memcpy(data, expected, size);
  tvixb_references_replace(data, size, pairs, n, width);
  for (size_t at = 0; at + width <= size;) {
    size_t i = 0;
    while (i < n && memcmp(expected + at, pairs + 2 * i * width, width)) i++;
    if (i < n) memcpy(expected + at, pairs + (2 * i + 1) * width, width);
    at += i < n ? width : 1;
  }
  assert(!size || !memcmp(data, expected, size));
  free(data);
}

int main(void) {
  check_empty();
  check_replaced();
  check_many_replaced();
  for (int i = 0; i < ROUNDS; i++) {
    check_random();
    check_random_replaced();
    check_random_replace();
  }
  puts("ok");
}
