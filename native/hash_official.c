// SPDX-License-Identifier: MIT
//
// Jobs on every CPU, with the official kernels: equal jobs together, the last
// block alone where it is not full.
#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "blake3_impl.h"
#include "hash_lanes.h"

static_assert(TVIXB_HASH_BLOCK_SIZE == BLAKE3_BLOCK_LEN, "same function");
static_assert(TVIXB_HASH_CHUNK_SIZE == BLAKE3_CHUNK_LEN, "same function");

// Whole blocks that are not the last one, unless the last one is whole too.
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

// The last block of a job, which is not full; cv is what came before it.
static void finish(const tvixb_hash_job* job, uint32_t cv[8]) {
  uint8_t block[TVIXB_HASH_BLOCK_SIZE] = {0};
  size_t before = whole_blocks(job) * TVIXB_HASH_BLOCK_SIZE;
  size_t size = job->size - before;
  if (size) memcpy(block, job->data + before, size);
  uint8_t flags = job->end_flags | (before ? 0 : job->start_flags);
  blake3_compress_in_place(cv, block, (uint8_t)size, job->counter, flags);
  store_cv_words(job->out, cv);
}

// Chaining values of the whole blocks. The official AVX2 and AVX-512 assembly
// reads 16 bytes behind an input where it is not given a multiple of 8 of them,
// so lanes are filled up with an input once more, and a few inputs go alone.
static void run_whole_blocks(const tvixb_hash_job* jobs, size_t count,
                             uint8_t end_flags, uint8_t* out) {
  const uint8_t* inputs[TVIXB_HASH_OFFICIAL_LANES];
  size_t lanes = count < 3 ? 1 : (count + 7) / 8 * 8;
  for (size_t i = 0; i < lanes; i++) {
    inputs[i] = jobs[i < count ? i : 0].data;
  }
  for (size_t first = 0; first < count; first += lanes) {
    if (lanes == 1) inputs[0] = jobs[first].data;
    blake3_hash_many(inputs, lanes, whole_blocks(jobs), tvixb_hash_iv,
                     jobs->counter, false, 0, jobs->start_flags, end_flags,
                     out + first * TVIXB_HASH_CV_SIZE);
  }
}

static void run_equal(const tvixb_hash_job* jobs, size_t count) {
  uint8_t out[TVIXB_HASH_OFFICIAL_LANES * TVIXB_HASH_CV_SIZE];
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

void tvixb_hash_jobs_official(const tvixb_hash_job* jobs, size_t count) {
  while (count) {
    size_t now = 1;
    while (now < count && now < TVIXB_HASH_OFFICIAL_LANES &&
           run_together(jobs, jobs + now)) {
      now++;
    }
    run_equal(jobs, now);
    jobs += now;
    count -= now;
  }
}

void tvixb_hash_chunks_official(const uint8_t* data, size_t count,
                                uint8_t* cvs) {
  const uint8_t* inputs[TVIXB_HASH_OFFICIAL_LANES];
  for (size_t first = 0; first < count; first += TVIXB_HASH_OFFICIAL_LANES) {
    size_t now = count - first < TVIXB_HASH_OFFICIAL_LANES
                     ? count - first
                     : TVIXB_HASH_OFFICIAL_LANES;
    for (size_t i = 0; i < now; i++) {
      inputs[i] = data + (first + i) * TVIXB_HASH_CHUNK_SIZE;
    }
    blake3_hash_many(inputs, now, TVIXB_HASH_CHUNK_SIZE / TVIXB_HASH_BLOCK_SIZE,
                     tvixb_hash_iv, first, true, 0, TVIXB_HASH_CHUNK_START,
                     TVIXB_HASH_CHUNK_END, cvs + first * TVIXB_HASH_CV_SIZE);
  }
}
