// SPDX-License-Identifier: MIT
//
// Compares every level that this CPU supports with the official hasher: every
// length up to a few chunks, and longer ones around the limits, alone and
// mixed.
#define _GNU_SOURCE
#include "hash.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "hash_lanes.h"

#define DATA_SIZE 300000
#define PAGE ((size_t)4096)

static uint8_t* data;

static void hash_official(tvixb_view view, uint8_t* digest) {
  blake3_hasher hasher;
  blake3_hasher_init(&hasher);
  blake3_hasher_update(&hasher, view.data, view.size);
  blake3_hasher_finalize(&hasher, digest, 32);
}

static void check(tvixb_cpu_level level, const tvixb_view* views, size_t n) {
  uint8_t* digests = malloc(32 * n);
  memset(digests, 0xee, 32 * n);
  tvixb_hash_many_with(level, views, n, digests);
  for (size_t i = 0; i < n; i++) {
    uint8_t expected[32];
    memset(expected, 0xee, 32);
    if (views[i].data) hash_official(views[i], expected);
    assert(memcmp(expected, digests + 32 * i, 32) == 0);
  }
  free(digests);
}

// Returns a copy at the end of its allocation, so that sanitizers find an
// over-read.
static tvixb_view copy(size_t begin, size_t size) {
  size_t room = (size + PAGE - 1) / PAGE * PAGE;
  uint8_t* pages = mmap(NULL, room + PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  assert(pages != MAP_FAILED);
  assert(mprotect(pages + room, PAGE, PROT_NONE) == 0);
  uint8_t* bytes = pages + room - size;
  memcpy(bytes, data + begin, size);
  return (tvixb_view){bytes, size};
}

static void drop(tvixb_view view) {
  size_t room = (view.size + PAGE - 1) / PAGE * PAGE;
  munmap((uint8_t*)view.data + view.size - room, room + PAGE);
}

static void check_lengths(tvixb_cpu_level level) {
  static tvixb_view views[5000];
  for (size_t size = 0; size < 5000; size++) {
    views[size] = copy(size, size);
    if (size < 1100 || size % 64 < 2) check(level, &views[size], 1);
  }
  check(level, views, 5000);
  for (size_t size = 0; size < 5000; size++) drop(views[size]);
}

static void check_limits(tvixb_cpu_level level) {
  for (size_t chunks = 1; chunks <= 130; chunks++) {
    tvixb_view views[3] = {copy(0, chunks * 1024 - 1), copy(1, chunks * 1024),
                           copy(2, chunks * 1024 + 1)};
    for (size_t i = 0; i < 3; i++) check(level, &views[i], 1);
    check(level, views, 3);
    for (size_t i = 0; i < 3; i++) drop(views[i]);
  }
}

// First chunks of longer messages together with messages of one whole chunk,
// which differ only in a flag.
static void check_roots(tvixb_cpu_level level) {
  tvixb_view views[32];
  for (size_t longer = 0; longer <= 32; longer++) {
    for (size_t i = 0; i < 32; i++) {
      views[i] = (tvixb_view){data + i, i < longer ? 1500 : 1024};
    }
    check(level, views, 16);
    check(level, views, 32);
    check(level, views, 15);
  }
}

static void check_mixed(tvixb_cpu_level level) {
  static tvixb_view views[3000];
  uint32_t seed = 1;
  for (size_t i = 0; i < 3000; i++) {
    seed = seed * 1664525 + 1013904223;
    size_t size = seed >> 8 & 0x3fff;
    if (i % 50 == 0) size *= 15;
    views[i] = i % 13 ? (tvixb_view){data + i, size} : (tvixb_view){0};
  }
  for (size_t n = 0; n < 70; n++) check(level, views + n, n);
  check(level, views, 3000);
}

static void check_stream(void) {
  tvixb_hash_stream* stream = malloc(sizeof *stream);
  for (size_t size = TVIXB_HASH_STREAM_BUFFER - 1;
       size <= TVIXB_HASH_STREAM_BUFFER + 1; size++) {
    uint8_t expected[32], found[32];
    tvixb_hash_stream_begin(stream);
    tvixb_hash_stream_put(stream, data, size);
    tvixb_hash_stream_end(stream, found);
    hash_official((tvixb_view){data, size}, expected);
    assert(memcmp(expected, found, 32) == 0);
  }
  for (size_t piece = 1; piece < DATA_SIZE; piece = piece * 7 + 1) {
    uint8_t expected[32], found[32];
    tvixb_hash_stream_begin(stream);
    for (size_t i = 0; i < DATA_SIZE; i += piece) {
      size_t left = DATA_SIZE - i;
      tvixb_hash_stream_put(stream, data + i, left < piece ? left : piece);
    }
    tvixb_hash_stream_end(stream, found);
    hash_official((tvixb_view){data, DATA_SIZE}, expected);
    assert(memcmp(expected, found, 32) == 0);
  }
  free(stream);
}

// Hashes a message of this size in parts.
static void check_parts_of(const uint8_t* message, size_t size) {
  uint8_t cvs[6 * 32], expected[32], found[32];
  size_t n = 0;
  for (size_t i = 0; i < size; i += TVIXB_HASH_PART_SIZE, n++) {
    size_t left = size - i;
    if (left > TVIXB_HASH_PART_SIZE) left = TVIXB_HASH_PART_SIZE;
    tvixb_hash_part(message + i, left, n, cvs + 32 * n);
  }
  tvixb_hash_join(cvs, n, found);
  hash_official((tvixb_view){message, size}, expected);
  assert(memcmp(expected, found, 32) == 0);
}

static void check_parts(void) {
  uint8_t* message = malloc(6 * TVIXB_HASH_PART_SIZE);
  for (size_t i = 0; i < 6 * TVIXB_HASH_PART_SIZE; i++) {
    message[i] = (uint8_t)(i * 31 >> 7);
  }
  for (size_t parts = 1; parts < 6; parts++) {
    size_t whole = parts * TVIXB_HASH_PART_SIZE;
    for (size_t chunks = 0; chunks < 40; chunks++) {
      for (size_t more = 1; more <= 1024; more += 341) {
        size_t size = whole + chunks * 1024 + more;
        // It ends with its allocation, so that sanitizers find an over-read.
        size_t begin = 6 * TVIXB_HASH_PART_SIZE - size;
        check_parts_of(message + begin, size);
      }
    }
    if (parts > 1) check_parts_of(message, whole);
  }
  free(message);
}

static void check_level(tvixb_cpu_level level) {
  check_lengths(level);
  check_limits(level);
  check_roots(level);
  check_mixed(level);
}

int main(void) {
  data = malloc(DATA_SIZE);
  for (size_t i = 0; i < DATA_SIZE; i++) data[i] = (uint8_t)(i * 31 >> 3);
  check_level(TVIXB_CPU_PLAIN);
  tvixb_cpu_level best = tvixb_cpu_best();
  tvixb_cpu_level lowest = best == TVIXB_CPU_NEON ? best : TVIXB_CPU_AVX2;
  for (tvixb_cpu_level level = lowest; level <= best; level++) {
    check_level(level);
  }
  check_stream();
  check_parts();
  free(data);
  puts("ok");
  return 0;
}
