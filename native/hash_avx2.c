// SPDX-License-Identifier: MIT
//
// The kernel for AVX2, with 8 lanes. Uses the kernel of the BLAKE3 library
// where that is possible, because it is faster.
#include <string.h>

#include "hash_lanes.h"

#ifdef TVIXB_HAVE_AVX2

// Without this, GCC reorders the steps of a round and spills registers.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-schedule-insns2")
#endif

#include <immintrin.h>

#include "blake3_impl.h"

#undef INLINE
#define TARGET TVIXB_TARGET_AVX2
#define INLINE static inline __attribute__((always_inline)) TARGET
#define LANES 8

typedef __m256i vector;

INLINE vector add(vector a, vector b) { return _mm256_add_epi32(a, b); }
INLINE vector sub(vector a, vector b) { return _mm256_sub_epi32(a, b); }
INLINE vector xor (vector a, vector b) { return _mm256_xor_si256(a, b); }
INLINE vector and (vector a, vector b) { return _mm256_and_si256(a, b); }
INLINE vector shift_right_8(vector a) { return _mm256_srli_epi32(a, 8); }
INLINE vector low32(vector a, vector b) { return _mm256_unpacklo_epi32(a, b); }
INLINE vector high32(vector a, vector b) { return _mm256_unpackhi_epi32(a, b); }
INLINE vector low64(vector a, vector b) { return _mm256_unpacklo_epi64(a, b); }
INLINE vector high64(vector a, vector b) { return _mm256_unpackhi_epi64(a, b); }
INLINE vector broadcast(uint32_t a) { return _mm256_set1_epi32((int)a); }

INLINE vector ror16(vector a) {
  return _mm256_shuffle_epi8(
      a, _mm256_set_epi8(13, 12, 15, 14, 9, 8, 11, 10, 5, 4, 7, 6, 1, 0, 3, 2,
                         13, 12, 15, 14, 9, 8, 11, 10, 5, 4, 7, 6, 1, 0, 3, 2));
}

INLINE vector ror8(vector a) {
  return _mm256_shuffle_epi8(
      a, _mm256_set_epi8(12, 15, 14, 13, 8, 11, 10, 9, 4, 7, 6, 5, 0, 3, 2, 1,
                         12, 15, 14, 13, 8, 11, 10, 9, 4, 7, 6, 5, 0, 3, 2, 1));
}

INLINE vector ror12(vector a) {
  return _mm256_or_si256(_mm256_srli_epi32(a, 12), _mm256_slli_epi32(a, 20));
}

INLINE vector ror7(vector a) {
  return _mm256_or_si256(_mm256_srli_epi32(a, 7), _mm256_slli_epi32(a, 25));
}

INLINE vector if_greater(vector a, vector b, vector then, vector otherwise) {
  return _mm256_blendv_epi8(otherwise, then, _mm256_cmpgt_epi32(a, b));
}

INLINE __m128i load_16(const uint8_t* p) {
  return _mm_loadu_si128((const __m128i*)(const void*)p);
}

INLINE vector gather(const uint8_t* const* at, size_t offset) {
  return _mm256_inserti128_si256(
      _mm256_castsi128_si256(load_16(at[0] + offset)), load_16(at[4] + offset),
      1);
}

INLINE void store_32(uint8_t* p, vector words) {
  _mm256_storeu_si256((__m256i*)(void*)p, words);
}

INLINE void scatter(const tvixb_hash_job* jobs, vector low, vector high) {
  store_32(jobs[0].out, _mm256_permute2x128_si256(low, high, 0x20));
  store_32(jobs[4].out, _mm256_permute2x128_si256(low, high, 0x31));
}

// The compiler keeps too many message words in registers otherwise, and spills
// words of the state, which are needed sooner.
#define PARK(vector) __asm__("" : "+m"(vector))

INLINE const uint8_t* block_of(const tvixb_hash_job* job, size_t begin,
                               uint8_t copy[2 * TVIXB_HASH_BLOCK_SIZE]) {
  return tvixb_hash_job_block(job, begin, copy);
}

#include "hash_kernel.h"

// Returns whether all lanes are whole chunks that differ only in their data.
static bool alike(const tvixb_hash_job* jobs) {
  bool alike = true;
  EACH_LANE alike &= jobs[i].size == TVIXB_HASH_CHUNK_SIZE &&
                     jobs[i].counter == jobs[0].counter &&
                     jobs[i].end_flags == jobs[0].end_flags;
  return alike;
}

// Hashes whole chunks that differ only in their data. Always passes LANES
// inputs: for a number that is not a multiple of 8, the library's assembly
// reads 16 bytes beyond an input.
static void hash_alike(const tvixb_hash_job* jobs) {
  const uint8_t* inputs[LANES];
  uint8_t cvs[LANES][TVIXB_HASH_CV_SIZE];
  EACH_LANE inputs[i] = jobs[i].data;
  blake3_hash_many_avx2(inputs, LANES,
                        TVIXB_HASH_CHUNK_SIZE / TVIXB_HASH_BLOCK_SIZE,
                        tvixb_hash_iv, jobs->counter, false, 0,
                        jobs->start_flags, jobs->end_flags, cvs[0]);
  EACH_LANE memcpy(jobs[i].out, cvs[i], TVIXB_HASH_CV_SIZE);
}

static void run(const tvixb_hash_job* jobs, size_t count) {
  for (; count >= LANES; jobs += LANES, count -= LANES) {
    alike(jobs) ? hash_alike(jobs) : hash_lanes(jobs);
  }
  hash_jobs(jobs, count);
}

const tvixb_hash_kernel tvixb_hash_avx2 = {run, blake3_hash_many_avx2, LANES,
                                           true};

#endif  // TVIXB_HAVE_AVX2
