// SPDX-License-Identifier: MIT
//
// Jobs of BLAKE3: the compression of one chunk or of one parent node. Kernels
// run many at once, each in a lane.
#ifndef TVIXB_HASH_LANES_H
#define TVIXB_HASH_LANES_H

#include <stddef.h>
#include <stdint.h>

#include "cpu.h"
#include "view.h"

#define TVIXB_HASH_BLOCK_SIZE 64
#define TVIXB_HASH_CHUNK_SIZE 1024
#define TVIXB_HASH_CV_SIZE 32

// Flags of a compression (the BLAKE3 paper, section 2.2).
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

// Blocks that a job compresses; no data are one block.
static inline size_t tvixb_hash_job_blocks(const tvixb_hash_job* job) {
  return job->size
             ? (job->size + TVIXB_HASH_BLOCK_SIZE - 1) / TVIXB_HASH_BLOCK_SIZE
             : 1;
}

// Runs jobs, the longest first. A job's output may lie in the data of an
// earlier one.
typedef void tvixb_hash_kernel(const tvixb_hash_job* jobs, size_t count);

tvixb_hash_kernel tvixb_hash_jobs_official;

// Lanes of the widest official kernel.
#define TVIXB_HASH_OFFICIAL_LANES 16

// Writes the chaining values of the first `count` chunks of a message, full
// ones and not its root.
void tvixb_hash_chunks_official(const uint8_t* data, size_t count,
                                uint8_t* cvs);

// The fastest kernel for jobs of any kind on this CPU.
tvixb_hash_kernel* tvixb_hash_best_kernel(void);

// tvixb_hash_many with a kernel of one's choice, which the CPU must have.
void tvixb_hash_many_with(tvixb_hash_kernel* kernel, const tvixb_view* views,
                          size_t n, uint8_t* digests);

#ifdef TVIXB_HAVE_AVX512
tvixb_hash_kernel tvixb_hash_jobs_avx512;
#endif

#endif  // TVIXB_HASH_LANES_H
