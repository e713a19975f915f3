// SPDX-License-Identifier: MIT
//
// The kernel for any CPU. Uses the BLAKE3 library's kernel for jobs of equal
// shape, and compresses an incomplete last block separately.
#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "blake3_impl.h"
#include "hash_lanes.h"

static_assert(TVIXB_HASH_BLOCK_SIZE == BLAKE3_BLOCK_LEN, "same function");
static_assert(TVIXB_HASH_CHUNK_SIZE == BLAKE3_CHUNK_LEN, "same function");

// Every x86-64 CPU has SSE2. On other CPUs the library chooses.
#if defined(__x86_64__)
#define HASH_MANY blake3_hash_many_sse2
#define COMPRESS blake3_compress_in_place_sse2
#else
#define HASH_MANY blake3_hash_many
#define COMPRESS blake3_compress_in_place
#endif

// Returns the number of whole blocks.
static size_t whole_blocks(const tvixb_hash_job* job) {
  return job->size / TVIXB_HASH_BLOCK_SIZE;
}

static bool ends_whole(const tvixb_hash_job* job) {
  return job->size && job->size % TVIXB_HASH_BLOCK_SIZE == 0;
}

static bool run_together(const tvixb_hash_job* a, const tvixb_hash_job* b) {
  return whole_blocks(a) == whole_blocks(b) && a->counter == b->counter &&
         a->start_flags == b->start_flags && ends_whole(a) == ends_whole(b) &&
         (!ends_whole(a) || a->end_flags == b->end_flags);
}

// Compresses the incomplete last block of a job. `cv` is the chaining value of
// the blocks before it.
static void finish(const tvixb_hash_job* job, uint32_t cv[8]) {
  uint8_t block[TVIXB_HASH_BLOCK_SIZE] = {0};
  size_t before = whole_blocks(job) * TVIXB_HASH_BLOCK_SIZE;
  size_t size = job->size - before;
  if (size) memcpy(block, job->data + before, size);
  uint8_t flags = job->end_flags | (before ? 0 : job->start_flags);
  COMPRESS(cv, block, (uint8_t)size, job->counter, flags);
  store_cv_words(job->out, cv);
}

// Writes the chaining values of the whole blocks.
static void run_whole_blocks(const tvixb_hash_job* jobs, size_t count,
                             uint8_t end_flags, uint8_t* out) {
  const uint8_t* inputs[TVIXB_HASH_LANES_MAX];
  for (size_t i = 0; i < count; i++) inputs[i] = jobs[i].data;
  HASH_MANY(inputs, count, whole_blocks(jobs), tvixb_hash_iv, jobs->counter,
            false, 0, jobs->start_flags, end_flags, out);
}

static void run_equal(const tvixb_hash_job* jobs, size_t count) {
  uint8_t out[TVIXB_HASH_LANES_MAX * TVIXB_HASH_CV_SIZE];
  bool whole = ends_whole(jobs);
  if (whole_blocks(jobs)) {
    run_whole_blocks(jobs, count, whole ? jobs->end_flags : 0, out);
  }
  for (size_t i = 0; i < count; i++) {
    if (whole) {
      memcpy(jobs[i].out, out + i * TVIXB_HASH_CV_SIZE, TVIXB_HASH_CV_SIZE);
      continue;
    }
    uint32_t cv[8];
    memcpy(cv, tvixb_hash_iv, sizeof cv);
    if (whole_blocks(jobs)) load_key_words(out + i * TVIXB_HASH_CV_SIZE, cv);
    finish(&jobs[i], cv);
  }
}

static void run(const tvixb_hash_job* jobs, size_t count) {
  while (count) {
    size_t now = 1;
    while (now < count && now < TVIXB_HASH_LANES_MAX &&
           run_together(jobs, jobs + now)) {
      now++;
    }
    run_equal(jobs, now);
    jobs += now;
    count -= now;
  }
}

const tvixb_hash_kernel tvixb_hash_plain = {run, HASH_MANY, 4, true};
