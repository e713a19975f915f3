// SPDX-License-Identifier: MIT
//
// The kernel for NEON, with 4 lanes.
#include <string.h>

#include "hash_lanes.h"

#ifdef TVIXB_HAVE_NEON

#include <arm_neon.h>

#include "blake3_impl.h"

#undef INLINE
#define TARGET
#define INLINE static inline __attribute__((always_inline))
#define LANES 4

typedef uint32x4_t vector;

INLINE vector add(vector a, vector b) { return vaddq_u32(a, b); }
INLINE vector sub(vector a, vector b) { return vsubq_u32(a, b); }
INLINE vector xor (vector a, vector b) { return veorq_u32(a, b); }
INLINE vector and (vector a, vector b) { return vandq_u32(a, b); }
INLINE vector shift_right_8(vector a) { return vshrq_n_u32(a, 8); }
INLINE vector low32(vector a, vector b) { return vzip1q_u32(a, b); }
INLINE vector high32(vector a, vector b) { return vzip2q_u32(a, b); }
INLINE vector broadcast(uint32_t a) { return vdupq_n_u32(a); }

INLINE vector low64(vector a, vector b) {
  return vreinterpretq_u32_u64(
      vzip1q_u64(vreinterpretq_u64_u32(a), vreinterpretq_u64_u32(b)));
}

INLINE vector high64(vector a, vector b) {
  return vreinterpretq_u32_u64(
      vzip2q_u64(vreinterpretq_u64_u32(a), vreinterpretq_u64_u32(b)));
}

INLINE vector ror16(vector a) {
  return vreinterpretq_u32_u16(vrev32q_u16(vreinterpretq_u16_u32(a)));
}

INLINE vector ror8(vector a) {
  const uint8x16_t bytes = {1, 2,  3,  0, 5,  6,  7,  4,
                            9, 10, 11, 8, 13, 14, 15, 12};
  return vreinterpretq_u32_u8(vqtbl1q_u8(vreinterpretq_u8_u32(a), bytes));
}

INLINE vector ror12(vector a) { return vsriq_n_u32(vshlq_n_u32(a, 20), a, 12); }

INLINE vector ror7(vector a) { return vsriq_n_u32(vshlq_n_u32(a, 25), a, 7); }

INLINE vector if_greater(vector a, vector b, vector then, vector otherwise) {
  return vbslq_u32(
      vcgtq_s32(vreinterpretq_s32_u32(a), vreinterpretq_s32_u32(b)), then,
      otherwise);
}

INLINE vector gather(const uint8_t* const* at, size_t offset) {
  return vreinterpretq_u32_u8(vld1q_u8(at[0] + offset));
}

INLINE void scatter(const tvixb_hash_job* jobs, vector low, vector high) {
  vst1q_u8(jobs->out, vreinterpretq_u8_u32(low));
  vst1q_u8(jobs->out + 16, vreinterpretq_u8_u32(high));
}

INLINE const uint8_t* block_of(const tvixb_hash_job* job, size_t begin,
                               uint8_t copy[2 * TVIXB_HASH_BLOCK_SIZE]) {
  return tvixb_hash_job_block(job, begin, copy);
}

#include "hash_kernel.h"

static void run(const tvixb_hash_job* jobs, size_t count) {
  size_t alone = count % LANES == 1;
  hash_jobs(jobs, count - alone);
  // The portable code needs fewer instructions than three idle lanes.
  if (alone) tvixb_hash_plain.run(jobs + count - 1, 1);
}

const tvixb_hash_kernel tvixb_hash_neon = {run, blake3_hash_many, LANES, false};

#endif  // TVIXB_HAVE_NEON
