// SPDX-License-Identifier: MIT
//
// Finds the bytes of a value that rules look for, in one pass.
#ifndef TVIXB_BYTES_H
#define TVIXB_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cpu.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif
#if defined(__aarch64__)
#include <arm_neon.h>
#endif

// The kinds of bytes that tvixb_bytes_find looks for.
enum {
  TVIXB_BYTES_NUL = 1,
  TVIXB_BYTES_BYTE = 2,
  TVIXB_BYTES_HIGH = 4,  // a byte above 0x7f: not ASCII
};

static inline uint64_t tvixb_bytes_load64(const uint8_t* p) {
  uint64_t word;
  memcpy(&word, p, sizeof word);
  return word;
}

static inline uint32_t tvixb_bytes_load32(const uint8_t* p) {
  uint32_t word;
  memcpy(&word, p, sizeof word);
  return word;
}

// Returns a word that is not 0 if a byte of `word` is the byte that `repeated`
// repeats. Only the lowest byte of the result that is not 0 is reliable.
static inline uint64_t tvixb_bytes_match(uint64_t word, uint64_t repeated) {
  uint64_t difference = word ^ repeated;
  return (difference - 0x0101010101010101u) & ~difference & 0x8080808080808080u;
}

static inline unsigned tvixb_bytes_find_word(uint64_t word, uint64_t repeated) {
  unsigned found = tvixb_bytes_match(word, 0) ? TVIXB_BYTES_NUL : 0;
  if (tvixb_bytes_match(word, repeated)) found |= TVIXB_BYTES_BYTE;
  if (word & 0x8080808080808080u) found |= TVIXB_BYTES_HIGH;
  return found;
}

// For up to 16 bytes. Reads overlap, so that they stay within the value. The
// padding is `a`, which is none of the bytes to find.
static inline unsigned tvixb_bytes_find_short(const uint8_t* p, size_t size,
                                              uint64_t repeated) {
  if (size >= 8) {
    return tvixb_bytes_find_word(tvixb_bytes_load64(p), repeated) |
           tvixb_bytes_find_word(tvixb_bytes_load64(p + size - 8), repeated);
  }
  if (size >= 4) {
    uint64_t high = tvixb_bytes_load32(p + size - 4);
    return tvixb_bytes_find_word(tvixb_bytes_load32(p) | high << 32, repeated);
  }
  uint64_t word = 0x6161616161616161u;
  for (size_t i = 0; i < size; i++) word = word << 8 | p[i];
  return tvixb_bytes_find_word(word, repeated);
}

#define TVIXB_BYTES_INLINE \
  static inline __attribute__((always_inline)) TVIXB_TARGET

#if defined(TVIXB_FOR_AVX512)
// No branch depends on a size of up to 64.
TVIXB_BYTES_INLINE unsigned tvixb_bytes_find_avx512(const uint8_t* p,
                                                    size_t size,
                                                    unsigned wanted,
                                                    uint8_t byte) {
  const __m512i bytes = _mm512_set1_epi8((char)byte);
  __mmask64 nul = 0, match = 0, high = 0;
  for (; size > 64; p += 64, size -= 64) {
    __m512i block = _mm512_loadu_si512(p);
    nul |= _mm512_testn_epi8_mask(block, block);
    match |= _mm512_cmpeq_epi8_mask(block, bytes);
    high |= _mm512_movepi8_mask(block);
  }
  __mmask64 in = _bzhi_u64(UINT64_MAX, (unsigned)size);
  __m512i block = _mm512_maskz_loadu_epi8(in, p);
  nul |= _mm512_mask_testn_epi8_mask(in, block, block);
  match |= _mm512_mask_cmpeq_epi8_mask(in, block, bytes);
  high |= _mm512_movepi8_mask(block);
  __mmask64 any = (wanted & TVIXB_BYTES_NUL ? nul : 0) |
                  (wanted & TVIXB_BYTES_BYTE ? match : 0) |
                  (wanted & TVIXB_BYTES_HIGH ? high : 0);
  if (__builtin_expect(any == 0, 1)) return 0;
  return (nul ? TVIXB_BYTES_NUL : 0) | (match ? TVIXB_BYTES_BYTE : 0) |
         (high ? TVIXB_BYTES_HIGH : 0);
}
#endif

#if defined(TVIXB_FOR_AVX2)
// Returns a vector with the highest bit set in each byte of p[0 .. 32) that is
// wanted.
TVIXB_BYTES_INLINE __m256i tvixb_bytes_match_avx2(const uint8_t* p,
                                                  unsigned wanted,
                                                  uint8_t byte) {
  const __m256i zero = _mm256_setzero_si256();
  __m256i block = _mm256_loadu_si256((const __m256i*)(const void*)p);
  __m256i found = wanted & TVIXB_BYTES_HIGH ? block : zero;
  if (wanted & TVIXB_BYTES_NUL) {
    found = _mm256_or_si256(found, _mm256_cmpeq_epi8(block, zero));
  }
  if (wanted & TVIXB_BYTES_BYTE) {
    const __m256i bytes = _mm256_set1_epi8((char)byte);
    found = _mm256_or_si256(found, _mm256_cmpeq_epi8(block, bytes));
  }
  return found;
}

// Returns whether no wanted byte is in p[0 .. size). Reads at least 64 bytes.
// No branch depends on a size of up to 64.
TVIXB_BYTES_INLINE bool tvixb_bytes_none_avx2(const uint8_t* p, size_t size,
                                              unsigned wanted, uint8_t byte) {
  __m256i low = tvixb_bytes_match_avx2(p, wanted, byte);
  __m256i high = tvixb_bytes_match_avx2(p + 32, wanted, byte);
  if (__builtin_expect(size <= 64, 1)) {
    uint64_t found = (uint32_t)_mm256_movemask_epi8(low) |
                     (uint64_t)(uint32_t)_mm256_movemask_epi8(high) << 32;
    return !_bzhi_u64(found, (unsigned)size);
  }
  __m256i found = _mm256_or_si256(low, high);
  for (size_t i = 64; i < size; i += 64) {
    const uint8_t* at = p + (i < size - 64 ? i : size - 64);
    low = tvixb_bytes_match_avx2(at, wanted, byte);
    high = tvixb_bytes_match_avx2(at + 32, wanted, byte);
    found = _mm256_or_si256(found, _mm256_or_si256(low, high));
  }
  return !_mm256_movemask_epi8(found);
}
#endif

#if defined(__aarch64__)
// For values of at least 8 bytes. Reads overlap, so that they stay within the
// value.
static inline unsigned tvixb_bytes_find_neon(const uint8_t* p, size_t size,
                                             unsigned wanted, uint8_t byte) {
  const uint8x16_t bytes = vdupq_n_u8(byte);
  uint8x16_t block = size < 16 ? vcombine_u8(vld1_u8(p), vld1_u8(p + size - 8))
                               : vld1q_u8(p + size - 16);
  uint8x16_t least = block, high = block, match = vceqq_u8(block, bytes);
  for (size_t i = 0; i + 16 < size; i += 16) {
    block = vld1q_u8(p + i);
    least = vminq_u8(least, block);
    match = vorrq_u8(match, vceqq_u8(block, bytes));
    high = vorrq_u8(high, block);
  }
  uint8x16_t any = vdupq_n_u8(0);
  if (wanted & TVIXB_BYTES_NUL) any = vceqzq_u8(least);
  if (wanted & TVIXB_BYTES_BYTE) any = vorrq_u8(any, match);
  if (wanted & TVIXB_BYTES_HIGH) {
    any = vorrq_u8(any, vcltzq_s8(vreinterpretq_s8_u8(high)));
  }
  if (__builtin_expect(vmaxvq_u8(any) == 0, 1)) return 0;
  return (vminvq_u8(least) ? 0 : TVIXB_BYTES_NUL) |
         (vmaxvq_u8(match) ? TVIXB_BYTES_BYTE : 0) |
         (vmaxvq_u8(high) > 0x7f ? TVIXB_BYTES_HIGH : 0);
}
#endif

// Returns which of NUL, `byte` (not 'a') and bytes above 0x7f are in p[0 ..
// size), as bits of the enum above. Bits that are not in `wanted` may be
// missing. May read the bytes up to `end`, which is not before p + size.
TVIXB_BYTES_INLINE unsigned tvixb_bytes_find(const uint8_t* p, size_t size,
                                             const uint8_t* end,
                                             unsigned wanted, uint8_t byte) {
  (void)end;
#if defined(TVIXB_FOR_AVX512)
  return tvixb_bytes_find_avx512(p, size, wanted, byte);
#endif
#if defined(TVIXB_FOR_AVX2)
  if (__builtin_expect(end - p >= 64, 1) &&
      __builtin_expect(tvixb_bytes_none_avx2(p, size, wanted, byte), 1)) {
    return 0;
  }
#endif
#if defined(__aarch64__)
  if (size >= 8) return tvixb_bytes_find_neon(p, size, wanted, byte);
#endif
  (void)wanted;  // skipping bits is not faster below
  uint64_t repeated = byte * 0x0101010101010101u;
  if (size <= 16) return tvixb_bytes_find_short(p, size, repeated);
#if defined(__SSE2__)
  const __m128i zero = _mm_setzero_si128(), bytes = _mm_set1_epi8((char)byte);
  __m128i nul = zero, match = zero, high = zero;
  for (size_t i = 0; i < size;) {
    __m128i block = _mm_loadu_si128((const __m128i*)(const void*)(p + i));
    nul = _mm_or_si128(nul, _mm_cmpeq_epi8(block, zero));
    match = _mm_or_si128(match, _mm_cmpeq_epi8(block, bytes));
    high = _mm_or_si128(high, block);
    i += 16;
    if (i < size && size - i < 16) i = size - 16;
  }
  return (_mm_movemask_epi8(nul) ? TVIXB_BYTES_NUL : 0) |
         (_mm_movemask_epi8(match) ? TVIXB_BYTES_BYTE : 0) |
         (_mm_movemask_epi8(high) ? TVIXB_BYTES_HIGH : 0);
#else
  unsigned found = 0;
  for (size_t i = 0; i < size;) {
    found |= tvixb_bytes_find_word(tvixb_bytes_load64(p + i), repeated);
    i += 8;
    if (i < size && size - i < 8) i = size - 8;
  }
  return found;
#endif
}

#endif  // TVIXB_BYTES_H
