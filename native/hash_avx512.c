// SPDX-License-Identifier: MIT
//
// BLAKE3 in 16 lanes of AVX-512. Each lane is a job of its own: own data,
// length, counter and flags; a lane that is done is masked out.
#include "hash_lanes.h"

#ifdef TVIXB_HAVE_AVX512

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline)) TVIXB_TARGET_AVX512

#define LANES 16
#define WORDS 16

INLINE __m512i add(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }

// The quarter round of the BLAKE3 paper, section 2.2, on columns or diagonals.
#define G(a, b, c, d, x, y)                           \
  do {                                                \
    a = add(add(a, b), x);                            \
    d = _mm512_ror_epi32(_mm512_xor_si512(d, a), 16); \
    c = add(c, d);                                    \
    b = _mm512_ror_epi32(_mm512_xor_si512(b, c), 12); \
    a = add(add(a, b), y);                            \
    d = _mm512_ror_epi32(_mm512_xor_si512(d, a), 8);  \
    c = add(c, d);                                    \
    b = _mm512_ror_epi32(_mm512_xor_si512(b, c), 7);  \
  } while (0)

#define ROUND(v, m, a, b, c, d, e, f, g, h, i, j, k, l, n, o, p, q) \
  do {                                                              \
    G(v[0], v[4], v[8], v[12], m[a], m[b]);                         \
    G(v[1], v[5], v[9], v[13], m[c], m[d]);                         \
    G(v[2], v[6], v[10], v[14], m[e], m[f]);                        \
    G(v[3], v[7], v[11], v[15], m[g], m[h]);                        \
    G(v[0], v[5], v[10], v[15], m[i], m[j]);                        \
    G(v[1], v[6], v[11], v[12], m[k], m[l]);                        \
    G(v[2], v[7], v[8], v[13], m[n], m[o]);                         \
    G(v[3], v[4], v[9], v[14], m[p], m[q]);                         \
  } while (0)

// The seven rounds; each takes the message words permuted once more.
INLINE void rounds(__m512i v[WORDS], const __m512i m[WORDS]) {
  ROUND(v, m, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  ROUND(v, m, 2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8);
  ROUND(v, m, 3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1);
  ROUND(v, m, 10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6);
  ROUND(v, m, 12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4);
  ROUND(v, m, 9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7);
  ROUND(v, m, 11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13);
}

// Turns 16 rows of 16 words into columns.
INLINE void transpose(__m512i r[WORDS]) {
  __m512i t[WORDS];
  for (int i = 0; i < WORDS; i += 4) {
    __m512i a = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    __m512i b = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    __m512i c = _mm512_unpacklo_epi32(r[i + 2], r[i + 3]);
    __m512i d = _mm512_unpackhi_epi32(r[i + 2], r[i + 3]);
    t[i] = _mm512_unpacklo_epi64(a, c);
    t[i + 1] = _mm512_unpackhi_epi64(a, c);
    t[i + 2] = _mm512_unpacklo_epi64(b, d);
    t[i + 3] = _mm512_unpackhi_epi64(b, d);
  }
  for (int i = 0; i < 4; i++) {
    __m512i a = _mm512_shuffle_i32x4(t[i], t[i + 4], 0x88);
    __m512i b = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0x88);
    __m512i c = _mm512_shuffle_i32x4(t[i], t[i + 4], 0xdd);
    __m512i d = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0xdd);
    r[i] = _mm512_shuffle_i32x4(a, b, 0x88);
    r[i + 4] = _mm512_shuffle_i32x4(c, d, 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(a, b, 0xdd);
    r[i + 12] = _mm512_shuffle_i32x4(c, d, 0xdd);
  }
}

// What the lanes of one call are, one word a lane.
typedef struct lanes {
  __m512i size, start_flags, end_flags, counter_low, counter_high;
} lanes;

INLINE lanes load_lanes(const tvixb_hash_job* jobs, size_t count) {
  uint32_t words[5][LANES] = {{0}};
  for (size_t i = 0; i < count; i++) {
    words[0][i] = jobs[i].size;
    words[1][i] = jobs[i].start_flags;
    words[2][i] = jobs[i].end_flags;
    words[3][i] = (uint32_t)jobs[i].counter;
    words[4][i] = (uint32_t)(jobs[i].counter >> 32);
  }
  return (lanes){_mm512_loadu_si512(words[0]), _mm512_loadu_si512(words[1]),
                 _mm512_loadu_si512(words[2]), _mm512_loadu_si512(words[3]),
                 _mm512_loadu_si512(words[4])};
}

// Loads block `block` of every lane; what is behind the end of its data is 0
// and is not touched.
INLINE void load_block(const tvixb_hash_job* jobs, size_t count, size_t block,
                       __m512i m[WORDS]) {
  size_t begin = block * TVIXB_HASH_BLOCK_SIZE;
  for (size_t i = 0; i < LANES; i++) {
    m[i] = _mm512_setzero_si512();
    if (i >= count || jobs[i].size <= begin) continue;
    size_t left = jobs[i].size - begin;
    m[i] = left >= TVIXB_HASH_BLOCK_SIZE
               ? _mm512_loadu_si512(jobs[i].data + begin)
               : _mm512_maskz_loadu_epi8(((__mmask64)1 << left) - 1,
                                         jobs[i].data + begin);
  }
  transpose(m);
}

INLINE void store(const tvixb_hash_job* jobs, size_t count,
                  const __m512i cv[8]) {
  __m512i r[WORDS];
  for (int i = 0; i < 8; i++) r[i] = cv[i];
  for (int i = 8; i < WORDS; i++) r[i] = _mm512_setzero_si512();
  transpose(r);
  for (size_t i = 0; i < count; i++) {
    _mm256_storeu_si256((__m256i*)jobs[i].out, _mm512_castsi512_si256(r[i]));
  }
}

// Up to 16 jobs, the longest first.
TVIXB_TARGET_AVX512 static void hash_lanes(const tvixb_hash_job* jobs,
                                           size_t count) {
  const lanes lane = load_lanes(jobs, count);
  const __m512i block_size = _mm512_set1_epi32(TVIXB_HASH_BLOCK_SIZE);
  __m512i cv[8];
  for (int i = 0; i < 8; i++) {
    cv[i] = _mm512_set1_epi32((int)tvixb_hash_iv[i]);
  }
  size_t blocks = tvixb_hash_job_blocks(&jobs[0]);
  __m512i left = lane.size;
  for (size_t block = 0; block < blocks; block++) {
    __m512i m[WORDS], v[WORDS];
    load_block(jobs, count, block, m);
    __mmask16 last = _mm512_cmple_epu32_mask(left, block_size);
    __m512i flags = _mm512_maskz_mov_epi32(last, lane.end_flags);
    if (block == 0) flags = _mm512_or_si512(flags, lane.start_flags);
    for (int i = 0; i < 8; i++) v[i] = cv[i];
    for (int i = 0; i < 4; i++) {
      v[8 + i] = _mm512_set1_epi32((int)tvixb_hash_iv[i]);
    }
    v[12] = lane.counter_low;
    v[13] = lane.counter_high;
    v[14] = _mm512_min_epu32(left, block_size);
    v[15] = flags;
    rounds(v, m);
    // A job without data has one block as well, of no bytes.
    __mmask16 active =
        block == 0 ? 0xffff
                   : _mm512_cmpneq_epi32_mask(left, _mm512_setzero_si512());
    for (int i = 0; i < 8; i++) {
      cv[i] = _mm512_mask_xor_epi32(cv[i], active, v[i], v[i + 8]);
    }
    left = _mm512_sub_epi32(left, _mm512_min_epu32(left, block_size));
  }
  store(jobs, count, cv);
}

void tvixb_hash_jobs_avx512(const tvixb_hash_job* jobs, size_t count) {
  while (count) {
    size_t now = count < LANES ? count : LANES;
    hash_lanes(jobs, now);
    jobs += now;
    count -= now;
  }
}

#endif  // TVIXB_HAVE_AVX512
