// SPDX-License-Identifier: MIT
//
// The kernel for AVX-512, with 16 lanes.
#include "hash_lanes.h"

#ifdef TVIXB_HAVE_AVX512

// Without this, GCC reorders the steps of a round and spills registers.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-schedule-insns2")
#endif

#include <immintrin.h>

#include "blake3_impl.h"

#undef INLINE
#define TARGET TVIXB_TARGET_AVX512
#define INLINE static inline __attribute__((always_inline)) TARGET
#define LANES 16

typedef __m512i vector;

INLINE vector add(vector a, vector b) { return _mm512_add_epi32(a, b); }
INLINE vector sub(vector a, vector b) { return _mm512_sub_epi32(a, b); }
INLINE vector xor (vector a, vector b) { return _mm512_xor_si512(a, b); }
INLINE vector and (vector a, vector b) { return _mm512_and_si512(a, b); }
INLINE vector shift_right_8(vector a) { return _mm512_srli_epi32(a, 8); }
INLINE vector ror16(vector a) { return _mm512_ror_epi32(a, 16); }
INLINE vector ror12(vector a) { return _mm512_ror_epi32(a, 12); }
INLINE vector ror8(vector a) { return _mm512_ror_epi32(a, 8); }
INLINE vector ror7(vector a) { return _mm512_ror_epi32(a, 7); }
INLINE vector low32(vector a, vector b) { return _mm512_unpacklo_epi32(a, b); }
INLINE vector high32(vector a, vector b) { return _mm512_unpackhi_epi32(a, b); }
INLINE vector low64(vector a, vector b) { return _mm512_unpacklo_epi64(a, b); }
INLINE vector high64(vector a, vector b) { return _mm512_unpackhi_epi64(a, b); }
INLINE vector broadcast(uint32_t a) { return _mm512_set1_epi32((int)a); }

INLINE vector if_greater(vector a, vector b, vector then, vector otherwise) {
  return _mm512_mask_blend_epi32(_mm512_cmpgt_epi32_mask(a, b), otherwise,
                                 then);
}

INLINE __m128i load_16(const uint8_t* p) {
  return _mm_loadu_si128((const __m128i*)(const void*)p);
}

INLINE vector gather(const uint8_t* const* at, size_t offset) {
  vector row = _mm512_castsi128_si512(load_16(at[0] + offset));
  row = _mm512_inserti32x4(row, load_16(at[4] + offset), 1);
  row = _mm512_inserti32x4(row, load_16(at[8] + offset), 2);
  return _mm512_inserti32x4(row, load_16(at[12] + offset), 3);
}

INLINE void store_32(uint8_t* p, __m256i words) {
  _mm256_storeu_si256((__m256i*)(void*)p, words);
}

INLINE void scatter(const tvixb_hash_job* jobs, vector low, vector high) {
  const vector first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
  const vector second = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
  vector a = _mm512_permutex2var_epi64(low, first, high);
  vector b = _mm512_permutex2var_epi64(low, second, high);
  store_32(jobs[0].out, _mm512_castsi512_si256(a));
  store_32(jobs[4].out, _mm512_extracti64x4_epi64(a, 1));
  store_32(jobs[8].out, _mm512_castsi512_si256(b));
  store_32(jobs[12].out, _mm512_extracti64x4_epi64(b, 1));
}

INLINE const uint8_t* block_of(const tvixb_hash_job* job, size_t begin,
                               uint8_t copy[2 * TVIXB_HASH_BLOCK_SIZE]) {
  size_t size = job->size > begin ? job->size - begin : 0;
  __mmask64 in =
      size < TVIXB_HASH_BLOCK_SIZE ? ((__mmask64)1 << size) - 1 : ~(__mmask64)0;
  _mm512_storeu_si512(copy, _mm512_maskz_loadu_epi8(in, job->data + begin));
  return copy;
}

#include "hash_kernel.h"

const tvixb_hash_kernel tvixb_hash_avx512 = {hash_jobs, blake3_hash_many_avx512,
                                             LANES, false};

#endif  // TVIXB_HAVE_AVX512
