// SPDX-License-Identifier: MIT
//
// Checks any bytes as one message of the kind KIND:
// - the library reads no byte outside the message
// - the verdict, the digest and the violations are the same alone and in a
//   batch, with and without an encoding, and on every CPU level
// - the encoding is canonical, and the digest is its BLAKE3 hash
// - a message with the verdict TVIXB_CANONICAL equals its encoding
#define _GNU_SOURCE
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blake3.h"
#include "cpu.h"
#include "guard.h"
#include "mutate.h"
#include "tvix_build.h"

#define LIMIT 5  // violations kept

typedef struct outcome {
  uint8_t verdict;
  uint8_t digest[TVIXB_DIGEST_SIZE];
  uint64_t total;
  size_t kept;
  tvixb_violation violations[LIMIT];
} outcome;

static tvixb_context* context;
static const tvixb_kind* kind;

static void begin(void) {
  if (context) return;
  context = tvixb_context_new();
  kind = tvixb_kind_find(KIND);
  assert(context && kind);
  tvixb_context_set_violation_limit(context, LIMIT);
}

// Returns the outcome of message i in the last call.
static outcome take(size_t i, const uint8_t* verdicts, const uint8_t* digests) {
  outcome found = {.verdict = verdicts[i]};
  memcpy(found.digest, digests + i * TVIXB_DIGEST_SIZE, TVIXB_DIGEST_SIZE);
  size_t count, records;
  const tvixb_violations_of* entries =
      tvixb_violations_by_message(context, &count);
  const tvixb_violation* all = tvixb_violations(context, &records);
  for (size_t j = 0; j < count; j++) {
    if (entries[j].message != i) continue;
    found.total = entries[j].total;
    found.kept = (size_t)entries[j].kept;
    assert(found.kept <= LIMIT && entries[j].first + found.kept <= records);
    for (size_t k = 0; k < found.kept; k++) {
      found.violations[k] = all[entries[j].first + k];
      found.violations[k].message = 0;
      char text[4096];
      assert(tvixb_violation_path(kind, &found.violations[k], text,
                                  sizeof text) < sizeof text);
      assert(tvixb_violation_message(kind, &found.violations[k], text,
                                     sizeof text) < sizeof text);
    }
  }
  return found;
}

static void same(const outcome* a, const outcome* b) {
  assert(a->verdict == b->verdict);
  assert(!memcmp(a->digest, b->digest, TVIXB_DIGEST_SIZE));
  assert(a->total == b->total && a->kept == b->kept);
  assert(
      !memcmp(a->violations, b->violations, a->kept * sizeof a->violations[0]));
}

static outcome check(const uint8_t* data, size_t size) {
  uint64_t first = 0, end = size;
  uint8_t verdict, digest[TVIXB_DIGEST_SIZE];
  tvixb_results results = {&verdict, digest, NULL};
  assert(!tvixb_check(context, kind, data, size, &first, &end, 1, &results));
  return take(0, &verdict, digest);
}

// Checks a message with its encoding. Sets *encoding to the encoding, which the
// caller must free, and *encoded to its size.
static outcome encode(const uint8_t* data, size_t size, uint8_t** encoding,
                      size_t* encoded) {
  uint64_t first = 0, end = size, encoding_end = 0;
  uint8_t verdict, digest[TVIXB_DIGEST_SIZE];
  size_t room = tvixb_encoded_room(kind, size, &first, &end, 1);
  *encoding = malloc(room + 1);
  assert(*encoding);
  tvixb_encodings encodings = {*encoding, room, &encoding_end, 0};
  tvixb_results results = {&verdict, digest, &encodings};
  assert(!tvixb_check(context, kind, data, size, &first, &end, 1, &results));
  assert(encoding_end <= room);
  *encoded = (size_t)encoding_end;
  return take(0, &verdict, digest);
}

static void check_encoding(const outcome* expected, const uint8_t* data,
                           size_t size) {
  uint8_t *first, *second;
  size_t first_size, second_size;
  outcome found = encode(data, size, &first, &first_size);
  same(expected, &found);
  if (found.verdict > TVIXB_UNSORTED) {
    assert(!first_size);
    free(first);
    return;
  }
  assert(found.verdict != TVIXB_CANONICAL ||
         (first_size == size && !(size && memcmp(first, data, size))));
  uint8_t digest[TVIXB_DIGEST_SIZE];
  blake3_hasher hasher;
  blake3_hasher_init(&hasher);
  blake3_hasher_update(&hasher, first, first_size);
  blake3_hasher_finalize(&hasher, digest, sizeof digest);
  assert(!memcmp(digest, found.digest, sizeof digest));
  outcome again = encode(first, first_size, &second, &second_size);
  assert(again.verdict == TVIXB_CANONICAL && !again.total);
  assert(!memcmp(again.digest, found.digest, sizeof digest));
  assert(second_size == first_size);
  assert(!(first_size && memcmp(first, second, first_size)));
  free(first);
  free(second);
}

// Checks a batch of the message between parts of itself.
static void check_batch(const outcome* expected, const uint8_t* data,
                        size_t size) {
  enum { COUNT = 5 };
  const uint64_t begins[COUNT] = {0, 0, size / 3, 0, size};
  const uint64_t ends[COUNT] = {size / 2, size, size, size, size};
  uint8_t verdicts[COUNT], digests[COUNT * TVIXB_DIGEST_SIZE];
  tvixb_results results = {verdicts, digests, NULL};
  assert(
      !tvixb_check(context, kind, data, size, begins, ends, COUNT, &results));
  for (size_t i = 1; i < COUNT; i += 2) {
    if (ends[i] - begins[i] != size) continue;
    outcome found = take(i, verdicts, digests);
    same(expected, &found);
  }
}

static void check_range(uint64_t begin, uint64_t end, uint64_t size) {
  assert(begin <= end && end <= size);
}

// Checks a plan, and what tvixb_check_plan returns about its steps.
static void check_steps(const outcome* expected, const uint8_t* data,
                        size_t size) {
  uint8_t verdict, digest[TVIXB_DIGEST_SIZE];
  tvixb_steps steps;
  assert(!tvixb_check_plan(context, data, size, &verdict, digest, &steps));
  outcome found = take(0, &verdict, digest);
  same(expected, &found);
  if (verdict != TVIXB_CANONICAL) {
    assert(!steps.count && !steps.digests);
    return;
  }
  uint64_t refs = steps.ref_starts[steps.count];
  uint64_t outputs = steps.output_starts[steps.count];
  for (size_t i = 0; i < steps.count; i++) {
    check_range(steps.begins[i], steps.ends[i], size);
    check_range(steps.ref_starts[i], steps.ref_starts[i + 1], refs);
    check_range(steps.output_starts[i], steps.output_starts[i + 1], outputs);
    uint8_t own[TVIXB_DIGEST_SIZE];
    assert(!tvixb_blake3_many(data, size, &steps.begins[i], &steps.ends[i], 1,
                              own));
    assert(!memcmp(own, steps.digests + i * sizeof own, sizeof own));
  }
  for (uint64_t j = 0; j < refs; j++) {
    uint64_t step = steps.ref_steps[j], output = steps.ref_outputs[j];
    assert(step < steps.count && output >= steps.output_starts[step] &&
           output < steps.output_starts[step + 1]);
  }
  uint8_t* done = calloc(steps.count + 1, 1);
  assert(done);
  for (size_t i = 0; i < steps.count; i++) {
    uint64_t step = steps.order[i];
    assert(step < steps.count && !done[step]);
    for (uint64_t j = steps.ref_starts[step]; j < steps.ref_starts[step + 1];
         j++) {
      assert(done[steps.ref_steps[j]]);
    }
    done[step] = 1;
  }
  free(done);
  for (uint64_t j = 0; j < outputs; j++) {
    check_range(steps.output_begins[j], steps.output_ends[j], size);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size) {
  if (size > GUARD_ROOM) return 0;
  begin();
  const uint8_t* data = guard_begin(input, size);
  outcome expected = check(data, size);
  data = guard_end(input, size);
  outcome found = check(data, size);
  same(&expected, &found);
  check_encoding(&expected, data, size);
  check_batch(&expected, data, size);
  if (!strcmp(KIND, "tvix_build.plan.v1.Plan")) {
    check_steps(&expected, data, size);
  }
  static const char* const levels[] = {"plain", "avx2", "best"};
  for (size_t level = 0; level < 3; level++) {
    tvixb_cpu_lower(levels[level]);
    kind = tvixb_kind_find(KIND);
    found = check(data, size);
    same(&expected, &found);
  }
  return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                               unsigned seed);
size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                               unsigned seed) {
  return mutate(data, size, max_size, seed);
}
