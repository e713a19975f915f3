// SPDX-License-Identifier: MIT
//
// Splits a stream into records, and checks possibly invalid ranges. Compares
// the digests of ranges with the official hasher.
#define _GNU_SOURCE
#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "blake3.h"
#include "cpu.h"
#include "guard.h"
#include "tvix_build.h"

#define COUNT 40

static void check_digest(const uint8_t* data, size_t size,
                         const uint8_t* found) {
  uint8_t expected[TVIXB_DIGEST_SIZE];
  blake3_hasher hasher;
  blake3_hasher_init(&hasher);
  blake3_hasher_update(&hasher, data, size);
  blake3_hasher_finalize(&hasher, expected, sizeof expected);
  assert(!memcmp(found, expected, sizeof expected));
}

// Checks that the records are complete, contiguous and at most `capacity`.
static void check_split(const uint8_t* data, size_t size, size_t capacity) {
  uint64_t begins[COUNT], ends[COUNT];
  size_t count = 0, consumed = 0;
  tvixb_split_status status = tvixb_split_delimited(
      data, size, begins, ends, capacity, &count, &consumed);
  assert(count <= capacity && consumed <= size);
  uint64_t end = 0;
  for (size_t i = 0; i < count; i++) {
    assert(begins[i] > end && begins[i] <= end + 5 && ends[i] >= begins[i]);
    uint64_t length = 0;
    for (uint64_t at = end; at < begins[i]; at++) {
      length |= (uint64_t)(data[at] & 0x7f) << 7 * (at - end);
      assert((data[at] & 0x80) == (at + 1 < begins[i] ? 0x80 : 0));
    }
    assert(length == ends[i] - begins[i]);
    end = ends[i];
  }
  assert(end == consumed);
  if (status || count == capacity) return;
  // The rest is not a complete record.
  uint64_t length = 0;
  for (size_t i = 0; i < 5 && consumed + i < size; i++) {
    length |= (uint64_t)(data[consumed + i] & 0x7f) << 7 * i;
    if (data[consumed + i] < 0x80) {
      assert(length > size - consumed - i - 1);
      return;
    }
  }
  assert(size - consumed < 5);
}

// Takes ranges from the input itself: near its size, or any numbers.
static void check_ranges(const uint8_t* data, size_t size) {
  uint64_t begins[COUNT], ends[COUNT];
  size_t n = 0;
  bool good = true;
  for (size_t at = 0; n < COUNT && at + 17 <= size; n++, at += 17) {
    memcpy(&begins[n], data + at + 1, 8);
    memcpy(&ends[n], data + at + 9, 8);
    if (data[at] < 250) {
      begins[n] %= size + 1;
      ends[n] = begins[n] + ends[n] % (size - begins[n] + 1);
    }
    good = good && begins[n] <= ends[n] && ends[n] <= size;
  }
  static tvixb_context* context;
  if (!context) context = tvixb_context_new();
  const tvixb_kind* kind = tvixb_kind_find("tvix.castore.v1.Directory");
  uint8_t verdicts[COUNT], digests[COUNT * TVIXB_DIGEST_SIZE];
  tvixb_results results = {verdicts, digests, NULL};
  tvixb_status wanted = good ? TVIXB_OK : TVIXB_BAD_RANGE;
  assert(tvixb_check(context, kind, data, size, begins, ends, n, &results) ==
         wanted);
  size_t room = tvixb_encoded_room(kind, size, begins, ends, n);
  assert(room <= size * COUNT);
  static const char* const levels[] = {"plain", "avx2", "best"};
  for (size_t level = 0; level < 3; level++) {
    tvixb_cpu_lower(levels[level]);
    assert(tvixb_blake3_many(data, size, begins, ends, n, digests) == wanted);
    for (size_t i = 0; good && i < n; i++) {
      check_digest(data + begins[i], (size_t)(ends[i] - begins[i]),
                   digests + i * TVIXB_DIGEST_SIZE);
    }
  }
}

int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size) {
  if (size > GUARD_ROOM) return 0;
  const uint8_t* data = guard_end(input, size);
  check_split(data, size, COUNT);
  check_split(data, size, size % COUNT);
  check_ranges(data, size);
  assert(tvixb_count_fields(data, size, 2) <= size / 2);
  uint64_t begin, end;
  tvixb_find_fields(data, size, 2, &begin, &end);
  assert(begin <= end && end <= size);
  return 0;
}
