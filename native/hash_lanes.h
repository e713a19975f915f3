// SPDX-License-Identifier: MIT
//
// BLAKE3 jobs. A job compresses a chunk or a parent node. Kernels run many jobs
// at once, each in a lane.
#ifndef TVIXB_HASH_LANES_H
#define TVIXB_HASH_LANES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cpu.h"
#include "view.h"

#define TVIXB_HASH_BLOCK_SIZE 64
#define TVIXB_HASH_CHUNK_SIZE 1024
#define TVIXB_HASH_CV_SIZE 32

// Flags of a compression (BLAKE3 paper, section 2.2).
enum {
  TVIXB_HASH_CHUNK_START = 1,
  TVIXB_HASH_CHUNK_END = 2,
  TVIXB_HASH_PARENT = 4,
  TVIXB_HASH_ROOT = 8,
};

typedef struct tvixb_hash_job {
  const uint8_t* data;  // `size` bytes
  uint8_t* out;         // chaining value or digest, TVIXB_HASH_CV_SIZE bytes
  uint64_t counter;     // number of the chunk in its message; 0 for a parent
  uint32_t size;        // 0 to TVIXB_HASH_CHUNK_SIZE
  uint8_t start_flags;  // of the first block
  uint8_t end_flags;    // of the last block, which may be the first
} tvixb_hash_job;

extern const uint32_t tvixb_hash_iv[8];

// Returns the number of blocks of a job: one if the job has no data.
static inline size_t tvixb_hash_job_blocks(const tvixb_hash_job* job) {
  return job->size
             ? (job->size + TVIXB_HASH_BLOCK_SIZE - 1) / TVIXB_HASH_BLOCK_SIZE
             : 1;
}

// Returns the block of a job at `begin`, with 0 beyond the end of its data: in
// the data or in the copy.
static inline const uint8_t* tvixb_hash_job_block(
    const tvixb_hash_job* job, size_t begin,
    uint8_t copy[2 * TVIXB_HASH_BLOCK_SIZE]) {
  enum { SIZE = TVIXB_HASH_BLOCK_SIZE };
  static const uint8_t empty[SIZE];
  if (job->size <= begin) return empty;
  size_t size = job->size - begin;
  if (size >= SIZE) return job->data + begin;
  if (begin == 0) {
    memset(copy, 0, SIZE);
    memcpy(copy, job->data, size);
    return copy;
  }
  memcpy(copy, job->data + job->size - SIZE, SIZE);
  memset(copy + SIZE, 0, SIZE);
  return copy + SIZE - size;
}

// Number of jobs to pass to a kernel at once, if there are enough.
#define TVIXB_HASH_LANES_MAX 16

// The hash functions for a CPU level.
typedef struct tvixb_hash_kernel {
  // Runs jobs, which must be in descending order of their number of blocks. The
  // output of a job may overlap its own data or that of an earlier job.
  void (*run)(const tvixb_hash_job* jobs, size_t count);
  // The kernel of the BLAKE3 library, for inputs that differ only in their
  // data, and the number of inputs that fill its lanes.
  void (*library_hash_many)(const uint8_t* const* inputs, size_t count,
                            size_t blocks, const uint32_t key[8],
                            uint64_t counter, bool increment_counter,
                            uint8_t flags, uint8_t start_flags,
                            uint8_t end_flags, uint8_t* out);
  size_t library_lanes;
  bool by_counter;  // `run` is faster for whole chunks with equal counters
} tvixb_hash_kernel;

extern const tvixb_hash_kernel tvixb_hash_plain;
#ifdef TVIXB_HAVE_AVX2
extern const tvixb_hash_kernel tvixb_hash_avx2;
#endif
#ifdef TVIXB_HAVE_AVX512
extern const tvixb_hash_kernel tvixb_hash_avx512;
#endif
#ifdef TVIXB_HAVE_NEON
extern const tvixb_hash_kernel tvixb_hash_neon;
#endif

// tvixb_hash_many with a given level, which the CPU must support.
void tvixb_hash_many_with(tvixb_cpu_level level, const tvixb_view* views,
                          size_t n, uint8_t* digests);

#endif  // TVIXB_HASH_LANES_H
