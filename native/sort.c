// SPDX-License-Identifier: MIT
#include "sort.h"

#include <string.h>

#include "cpu.h"

#ifdef TVIXB_HAVE_AVX512
#include <immintrin.h>
#endif

// Up to RANK_COUNT keys are sorted by comparing each key with every other, so
// that no branch depends on the keys. The place of a key takes RANK_BITS bits.
#define RANK_BITS 6
#define RANK_COUNT (1 << RANK_BITS)
// Number of bits in a digit of the radix sort.
#define NARROW_BITS 8
#define NARROW_DIGITS ((size_t)1 << NARROW_BITS)
// At least this many keys, which exceed a cache, are distributed to buckets
// first. In test builds the number is small, so that fuzzers reach that code.
#ifdef TVIXB_TEST_BUILD
#define WIDE_COUNT 256
#else
#define WIDE_COUNT 32768
#endif
#define WIDE_BITS 11
#define WIDE_DIGITS ((size_t)1 << WIDE_BITS)
// Up to this many keys, insertion sort is faster than merge sort.
#define INSERTION_COUNT 16

typedef struct sorter {
  const tvixb_scan* scan;
  tvixb_sort_key* scratch;
} sorter;

static size_t common_size(tvixb_view a, tvixb_view b, size_t limit) {
  if (limit > a.size) limit = a.size;
  if (limit > b.size) limit = b.size;
  size_t i = 0;
  while (i + 8 <= limit && memcmp(a.data + i, b.data + i, 8) == 0) i += 8;
  while (i < limit && a.data[i] == b.data[i]) i++;
  return i;
}

// Sets the prefixes to the bytes after the common prefix of all keys.
static void load_behind_common(const tvixb_scan* scan, size_t first,
                               size_t count, tvixb_sort_key* keys) {
  tvixb_view one = tvixb_scan_key(scan, first);
  size_t common = one.size;
  for (size_t i = 1; i < count && common; i++) {
    common = common_size(one, tvixb_scan_key(scan, first + i), common);
  }
  for (size_t i = 0; i < count; i++) {
    tvixb_view key = tvixb_scan_key(scan, first + i);
    key.data += common;
    key.size -= common;
    keys[i].prefix = tvixb_view_prefix(key);
  }
}

// Returns the bits in which prefixes differ.
static uint64_t differences_of(const tvixb_sort_key* keys, size_t count) {
  uint64_t differences = 0;
  for (size_t i = 1; i < count; i++) {
    differences |= keys[i].prefix ^ keys[0].prefix;
  }
  return differences;
}

#ifdef TVIXB_HAVE_AVX512
// Moves the bits in which prefixes differ to the front, so that fewer digits
// distinguish the keys. That does not change the order.
TVIXB_TARGET_AVX512 static void drop_equal_bits(tvixb_sort_key* keys,
                                                size_t count) {
  uint64_t differences = differences_of(keys, count);
  if (differences == 0) return;
  int unused = 64 - __builtin_popcountll(differences);
  for (size_t i = 0; i < count; i++) {
    keys[i].prefix = _pext_u64(keys[i].prefix, differences) << unused;
  }
}
#endif

static inline void load_keys(const tvixb_scan* scan, size_t first, size_t count,
                             tvixb_sort_key* keys) {
  const tvixb_element* elements = scan->elements.items;
  for (size_t i = 0; i < count; i++) {
    const tvixb_element* element = &elements[first + i];
    keys[i] = (tvixb_sort_key){element->prefix, (uint32_t)(first + i),
                               (uint32_t)element->begin};
  }
  // The prefixes are good enough if they differ in their first half.
  if (differences_of(keys, count) >> 32 == 0) {
    load_behind_common(scan, first, count, keys);
  }
}

static int compare(const sorter* sorter, const tvixb_sort_key* a,
                   const tvixb_sort_key* b) {
  if (a->prefix != b->prefix) return a->prefix < b->prefix ? -1 : 1;
  return tvixb_view_compare(tvixb_scan_key(sorter->scan, a->element),
                            tvixb_scan_key(sorter->scan, b->element));
}

static void insertion_sort(const sorter* sorter, tvixb_sort_key* keys,
                           size_t count) {
  for (size_t i = 1; i < count; i++) {
    tvixb_sort_key key = keys[i];
    size_t place = i;
    for (; place > 0 && compare(sorter, &key, &keys[place - 1]) < 0; place--) {
      keys[place] = keys[place - 1];
    }
    keys[place] = key;
  }
}

// The depth of the recursion is log2(count). Sorted keys need one comparison
// each.
static void merge_sort(const sorter* sorter, tvixb_sort_key* keys,
                       size_t count) {
  if (count <= INSERTION_COUNT) {
    insertion_sort(sorter, keys, count);
    return;
  }
  size_t half = count / 2;
  merge_sort(sorter, keys, half);
  merge_sort(sorter, keys + half, count - half);
  if (compare(sorter, &keys[half - 1], &keys[half]) <= 0) return;
  tvixb_sort_key* scratch = sorter->scratch;
  memcpy(scratch, keys, half * sizeof *keys);
  size_t left = 0, right = half, out = 0;
  while (left < half && right < count) {
    keys[out++] = compare(sorter, &keys[right], &scratch[left]) < 0
                      ? keys[right++]
                      : scratch[left++];
  }
  memcpy(keys + out, scratch + left, (half - left) * sizeof *keys);
}

// Sorts the runs of keys whose leading bits are equal.
static void sort_equals(const sorter* sorter, tvixb_sort_key* keys,
                        size_t count, unsigned bits) {
  unsigned shift = 64 - bits;
  for (size_t i = 1; i < count; i++) {
    uint64_t leading = keys[i].prefix >> shift;
    if (leading != keys[i - 1].prefix >> shift) continue;
    size_t end = i + 1;
    while (end < count && keys[end].prefix >> shift == leading) end++;
    merge_sort(sorter, keys + i - 1, end - i + 1);
    i = end;
  }
}

// Writes the rank of each key. The keys must be unique.
static void rank_plain(const uint64_t* keys, uint64_t* ranks, size_t count) {
  for (size_t i = 0; i < count; i++) {
    uint64_t before = 0;
    for (size_t j = 0; j < count; j++) before += keys[j] < keys[i];
    ranks[i] = before;
  }
}

#ifdef TVIXB_HAVE_AVX512
// As rank_plain, for a multiple of 8 keys.
TVIXB_TARGET_AVX512 static void rank_avx512(const uint64_t* keys,
                                            uint64_t* ranks, size_t count) {
  const __m512i one = _mm512_set1_epi64(1);
  for (size_t i = 0; i < count; i += 8) {
    __m512i these = _mm512_loadu_si512(keys + i);
    __m512i before = _mm512_setzero_si512();
    for (size_t j = 0; j < count; j++) {
      __mmask8 less =
          _mm512_cmplt_epu64_mask(_mm512_set1_epi64((long long)keys[j]), these);
      before = _mm512_mask_add_epi64(before, less, before, one);
    }
    _mm512_storeu_si512(ranks + i, before);
  }
}
#endif

// Sorts the keys in the scratch memory into `keys`: by the leading bits and
// then by place, which replaces the last bits, so that the numbers to rank are
// unique.
static void rank_sort(const sorter* sorter, tvixb_sort_key* keys,
                      size_t count) {
  uint64_t places[RANK_COUNT], ranks[RANK_COUNT];
  const tvixb_sort_key* from = sorter->scratch;
  size_t padded = (count + 7) & ~(size_t)7;
  memset(places + padded - 8, 0xff, 8 * sizeof *places);
  for (size_t i = 0; i < count; i++) {
    places[i] = (from[i].prefix & ~(uint64_t)(RANK_COUNT - 1)) | i;
  }
#ifdef TVIXB_HAVE_AVX512
  if (tvixb_cpu_best() == TVIXB_CPU_AVX512) {
    rank_avx512(places, ranks, padded);
  } else
#endif
    rank_plain(places, ranks, count);
  for (size_t i = 0; i < count; i++) keys[ranks[i]] = from[i];
  sort_equals(sorter, keys, count, 64 - RANK_BITS);
}

// Sorts keys by the digit at `shift`, in a stable pass. Returns false, and
// moves nothing, if all keys have the same digit.
static bool radix_pass(const tvixb_sort_key* from, tvixb_sort_key* to,
                       size_t count, unsigned shift, unsigned digit_bits,
                       uint32_t* counts) {
  size_t digits = (size_t)1 << digit_bits;
  uint64_t mask = digits - 1;
  memset(counts, 0, digits * sizeof *counts);
  for (size_t i = 0; i < count; i++) counts[from[i].prefix >> shift & mask]++;
  if (counts[from[0].prefix >> shift & mask] == count) return false;
  uint32_t place = 0;
  for (size_t i = 0; i < digits; i++) {
    uint32_t here = counts[i];
    counts[i] = place;
    place += here;
  }
  for (size_t i = 0; i < count; i++) {
    to[counts[from[i].prefix >> shift & mask]++] = from[i];
  }
  return true;
}

// Sorts the leading bits by radix passes, and keys with equal leading bits by
// comparisons: these keys are few, unless the message was made to have many.
static void radix_sort(const sorter* sorter, tvixb_sort_key* keys, size_t count,
                       uint32_t* counts) {
  unsigned bits = 32;
  tvixb_sort_key *from = sorter->scratch, *to = keys;
#ifdef TVIXB_HAVE_AVX512
  if (tvixb_cpu_best() == TVIXB_CPU_AVX512) {
    drop_equal_bits(from, count);
    bits = 24;
  }
#endif
  for (unsigned shift = 64 - bits; shift < 64; shift += NARROW_BITS) {
    if (!radix_pass(from, to, count, shift, NARROW_BITS, counts)) continue;
    tvixb_sort_key* moved = to;
    to = from;
    from = moved;
  }
  if (from != keys) memcpy(keys, from, count * sizeof *keys);
  sort_equals(sorter, keys, count, bits);
}

static void small_sort(const sorter* sorter, tvixb_sort_key* keys, size_t count,
                       uint32_t* counts) {
  if (count <= RANK_COUNT) {
    rank_sort(sorter, keys, count);
  } else {
    radix_sort(sorter, keys, count, counts);
  }
}

// Distributes many keys to buckets that fit in the cache, and sorts each
// bucket.
static void bucket_sort(const sorter* sorter, tvixb_sort_key* keys,
                        size_t count, uint32_t* counts) {
  uint32_t* ends = counts + NARROW_DIGITS;
  if (!radix_pass(sorter->scratch, keys, count, 64 - WIDE_BITS, WIDE_BITS,
                  ends)) {
    radix_sort(sorter, keys, count, counts);
    return;
  }
  for (size_t i = 0, begin = 0; i < WIDE_DIGITS; begin = ends[i++]) {
    size_t size = ends[i] - begin;
    if (size == 0) continue;
    memcpy(sorter->scratch, keys + begin, size * sizeof *keys);
    small_sort(sorter, keys + begin, size, counts);
  }
}

bool tvixb_sort_elements(const tvixb_scan* scan, size_t first, size_t count,
                         tvixb_sort_key* keys, tvixb_sort_memory* memory) {
  memory->scratch.count = memory->counts.count = 0;
  if (first + count > UINT32_MAX ||
      !tvixb_vector_reserve(&memory->scratch, count, sizeof *keys) ||
      !tvixb_vector_reserve(&memory->counts, NARROW_DIGITS + WIDE_DIGITS,
                            sizeof(uint32_t))) {
    return false;
  }
  if (count == 0) return true;
  sorter sorter = {scan, memory->scratch.items};
  load_keys(scan, first, count, sorter.scratch);
  if (count < WIDE_COUNT) {
    small_sort(&sorter, keys, count, memory->counts.items);
  } else {
#ifdef TVIXB_HAVE_AVX512
    if (tvixb_cpu_best() == TVIXB_CPU_AVX512) {
      drop_equal_bits(sorter.scratch, count);
    }
#endif
    bucket_sort(&sorter, keys, count, memory->counts.items);
  }
  return true;
}

void tvixb_sort_memory_free(tvixb_sort_memory* memory) {
  tvixb_vector_free(&memory->scratch);
  tvixb_vector_free(&memory->counts);
}
