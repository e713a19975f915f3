// SPDX-License-Identifier: MIT
//
// A window has the size of the shortest needle, and moves over the stream. A
// table has the hashes of all grams, short substrings, of the first windows of
// the needles. If the last gram of a window is not in the table, no needle
// begins in the window before that gram, and the window moves behind the first
// byte of the gram (the algorithm of Wu and Manber). Otherwise the first bytes
// of the window are looked up in a second table, and then in the sorted
// needles.
#include "references.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define NONE SIZE_MAX
#define WORD 8  // bytes of the beginning of a window that are hashed
#define WORD_BITS 16
#define GRAM 4  // bytes of a gram, or less if the window is smaller
#define MIN_GRAM_BITS 12
#define MAX_GRAM_BITS 23
#define SPARSE 32  // bits of the table for each gram

typedef struct needle {
  const uint8_t* data;
  size_t size;
  size_t index;  // in the order of the caller
  size_t
      prefix;  // the longest other needle with which this one begins, or NONE
} needle;

// What is known of all windows that are sought.
typedef struct windows {
  size_t width;    // bytes of a window
  uint8_t* grams;  // 1 << gram_bits bits
  unsigned gram_bits;
  uint8_t words[(1 << WORD_BITS) / 8];
} windows;

struct tvixb_references {
  windows windows;  // of the size of the shortest needle
  needle* needles;  // sorted by their bytes
  size_t count;
  size_t left;  // needles that are not found
  size_t longest;
  uint8_t* found;
  uint8_t* bytes;   // of all needles
  uint8_t* border;  // the end of the stream, with room for the next bytes
  size_t kept;      // bytes of the stream in `border`, less than `longest`
};

static int compare(const uint8_t* a, size_t a_size, const uint8_t* b,
                   size_t b_size) {
  int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
  return order ? order : (a_size > b_size) - (a_size < b_size);
}

static int compare_needles(const void* a, const void* b) {
  const needle *x = a, *y = b;
  return compare(x->data, x->size, y->data, y->size);
}

static bool begins_with(const uint8_t* data, size_t size, const needle* with) {
  return with->size <= size && !memcmp(data, with->data, with->size);
}

static uint32_t hash_word(const uint8_t* data, size_t size) {
  uint64_t word = 0;
  memcpy(&word, data, size < WORD ? size : WORD);
  return (uint32_t)(word * 0x9e3779b97f4a7c15u >> (64 - WORD_BITS));
}

static uint32_t hash_gram(const uint8_t* data, size_t size, unsigned bits) {
  uint32_t gram = 0;
  memcpy(&gram, data, size);
  return gram * 0x9e3779b1u >> (32 - bits);
}

static void set_bit(uint8_t* table, uint32_t bit) {
  table[bit / 8] |= (uint8_t)(1 << bit % 8);
}

static bool has_bit(const uint8_t* table, uint32_t bit) {
  return table[bit / 8] >> bit % 8 & 1;
}

static size_t gram_size(size_t width) { return width < GRAM ? width : GRAM; }

// Adds a window to those that are sought. `gram` is gram_size(width); a
// constant makes this faster.
static inline void add_window(windows* windows, const uint8_t* window,
                              size_t gram) {
  const size_t width = windows->width;
  set_bit(windows->words, hash_word(window, width));
  for (size_t i = 0; i + gram <= width; i++) {
    set_bit(windows->grams, hash_gram(window + i, gram, windows->gram_bits));
  }
}

// Returns the first index from `begin` on at which a window may be that is
// sought; NONE if there is none. `gram` as for add_window.
static inline size_t find_window(const windows* windows, const uint8_t* data,
                                 size_t size, size_t begin, size_t gram) {
  const size_t width = windows->width, last = width - gram;
  const uint8_t* grams = windows->grams;
  const unsigned bits = windows->gram_bits;
  while (width <= size && begin <= size - width) {
    if (!has_bit(grams, hash_gram(data + begin + last, gram, bits))) {
      begin += last + 1;
      continue;
    }
    if (has_bit(windows->words, hash_word(data + begin, width))) return begin;
    begin++;
  }
  return NONE;
}

// Fills the members that depend on the order of the needles.
static void prepare(tvixb_references* scanner) {
  const size_t gram = gram_size(scanner->windows.width);
  for (size_t i = 0; i < scanner->count; i++) {
    needle* one = &scanner->needles[i];
    // The needle before, or one that it begins with.
    size_t prefix = i ? i - 1 : NONE;
    while (prefix != NONE &&
           !begins_with(one->data, one->size, &scanner->needles[prefix])) {
      prefix = scanner->needles[prefix].prefix;
    }
    one->prefix = prefix;
    add_window(&scanner->windows, one->data, gram);
  }
}

// Returns the size of the table of n grams, as a power of two.
static unsigned gram_bits(size_t n) {
  unsigned bits = MIN_GRAM_BITS;
  while (bits < MAX_GRAM_BITS && ((size_t)1 << bits) / SPARSE < n) bits++;
  return bits;
}

tvixb_references* tvixb_references_new(const uint8_t* needles,
                                       const uint64_t* ends, size_t n) {
  tvixb_references* scanner = calloc(1, sizeof *scanner);
  if (!scanner) return NULL;
  size_t size = n ? (size_t)ends[n - 1] : 0;
  // An allocation of 0 bytes may return NULL.
  scanner->needles = calloc(n + 1, sizeof *scanner->needles);
  scanner->found = calloc(n + 1, 1);
  scanner->bytes = calloc(size + 1, 1);
  if (!scanner->needles || !scanner->found || !scanner->bytes) goto failed;
  if (size) memcpy(scanner->bytes, needles, size);
  scanner->count = scanner->left = n;
  size_t shortest = n ? SIZE_MAX : 0;
  for (size_t i = 0, begin = 0; i < n; begin = (size_t)ends[i], i++) {
    size_t length = (size_t)ends[i] - begin;
    scanner->needles[i] = (needle){scanner->bytes + begin, length, i, NONE};
    if (length < shortest) shortest = length;
    if (length > scanner->longest) scanner->longest = length;
  }
  scanner->border = calloc(2, scanner->longest + 1);
  windows* windows = &scanner->windows;
  windows->width = shortest;
  windows->gram_bits = gram_bits(n * shortest);
  windows->grams = calloc(((size_t)1 << windows->gram_bits) / 8, 1);
  if (!scanner->border || !windows->grams) goto failed;
  qsort(scanner->needles, n, sizeof *scanner->needles, compare_needles);
  prepare(scanner);
  return scanner;
failed:
  tvixb_references_free(scanner);
  return NULL;
}

// Marks all needles with which the data begins. The last needle that is not
// after the data begins with all of them.
static void find_at(tvixb_references* scanner, const uint8_t* data,
                    size_t size) {
  size_t low = 0, high = scanner->count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const needle* one = &scanner->needles[middle];
    if (compare(one->data, one->size, data, size) <= 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  for (size_t i = low ? low - 1 : NONE; i != NONE;) {
    const needle* one = &scanner->needles[i];
    if (begins_with(data, size, one)) {
      if (scanner->found[one->index]) return;  // as are those it begins with
      scanner->found[one->index] = 1;
      scanner->left--;
    }
    i = one->prefix;
  }
}

// Scans bytes for needles that begin and end in them. `gram` as for
// add_window.
static inline void find_all(tvixb_references* scanner, const uint8_t* data,
                            size_t size, size_t gram) {
  const windows* windows = &scanner->windows;
  size_t begin = 0;
  while ((begin = find_window(windows, data, size, begin, gram)) != NONE) {
    find_at(scanner, data + begin, size - begin);
    if (!scanner->left) return;
    begin++;
  }
}

static void find(tvixb_references* scanner, const uint8_t* data, size_t size) {
  if (scanner->windows.width < GRAM) {
    find_all(scanner, data, size, scanner->windows.width);
  } else {
    find_all(scanner, data, size, GRAM);
  }
}

void tvixb_references_scan(tvixb_references* scanner, const uint8_t* data,
                           size_t size) {
  if (!scanner->left || !size) return;
  size_t reach = scanner->longest - 1;  // of a needle across the border
  size_t more = size < reach ? size : reach;
  if (reach) memcpy(scanner->border + scanner->kept, data, more);
  size_t total = scanner->kept + more;
  if (scanner->kept) find(scanner, scanner->border, total);
  find(scanner, data, size);
  if (size >= reach) {
    if (reach) memcpy(scanner->border, data + size - reach, reach);
    scanner->kept = reach;
  } else {
    size_t dropped = total > reach ? total - reach : 0;
    memmove(scanner->border, scanner->border + dropped, total - dropped);
    scanner->kept = total - dropped;
  }
}

void tvixb_references_end_stream(tvixb_references* scanner) {
  scanner->kept = 0;
}

const uint8_t* tvixb_references_found(const tvixb_references* scanner) {
  return scanner->found;
}

void tvixb_references_free(tvixb_references* scanner) {
  if (!scanner) return;
  free(scanner->needles);
  free(scanner->found);
  free(scanner->bytes);
  free(scanner->border);
  free(scanner->windows.grams);
  free(scanner);
}

// Returns the first index from `at` on at which two byte strings differ; `size`
// if there is none.
static size_t find_difference(const uint8_t* a, const uint8_t* b, size_t at,
                              size_t size) {
  const size_t block = 64;
  while (size - at >= block && !memcmp(a + at, b + at, block)) at += block;
  while (at < size && a[at] == b[at]) at++;
  return at;
}

// Returns whether new_data[0 .. size) is old_data[0 .. size) with some
// occurrences of the old strings of n pairs replaced.
static bool is_replaced(const uint8_t* old_data, const uint8_t* new_data,
                        size_t size, const uint8_t* pairs, size_t n,
                        size_t width) {
  size_t at, done = 0;
  while ((at = find_difference(old_data, new_data, done, size)) < size) {
    size_t end = 0;
    for (size_t i = 0; i < n && !end; i++) {
      const uint8_t* before = pairs + 2 * i * width;
      const uint8_t* after = before + width;
      // The first byte that differs must be the first one of the pair.
      size_t offset = find_difference(before, after, 0, width);
      if (offset == width || offset > at - done) continue;
      size_t begin = at - offset;
      if (width <= size - begin && !memcmp(old_data + begin, before, width) &&
          !memcmp(new_data + begin, after, width)) {
        end = begin + width;
      }
    }
    if (!end) return false;
    done = end;
  }
  return true;
}

void tvixb_references_replaced(const uint8_t* old_data,
                               const uint64_t* old_begins,
                               const uint8_t* new_data,
                               const uint64_t* new_begins,
                               const uint64_t* sizes, const uint8_t* pairs,
                               const uint64_t* pair_ends, size_t width,
                               size_t n, uint8_t* replaced) {
  uint64_t first = 0;
  for (size_t i = 0; i < n; i++) {
    replaced[i] = is_replaced(
        old_data + old_begins[i], new_data + new_begins[i], sizes[i],
        pairs + 2 * width * first, pair_ends[i] - first, width);
    first = pair_ends[i];
  }
}

// Returns the new string of the pair whose old string the data begins with;
// NULL if there is none.
static const uint8_t* find_replacement(const uint8_t* data,
                                       const uint8_t* pairs, size_t n,
                                       size_t width) {
  for (size_t i = 0; i < n; i++) {
    const uint8_t* before = pairs + 2 * i * width;
    if (!memcmp(data, before, width)) return before + width;
  }
  return NULL;
}

void tvixb_references_replace(uint8_t* data, size_t size, const uint8_t* pairs,
                              size_t n, size_t width) {
  uint8_t grams[(1 << WORD_BITS) / 8] = {0};
  windows windows = {.width = width, .grams = grams, .gram_bits = WORD_BITS};
  if (width < GRAM) return;
  for (size_t i = 0; i < n; i++) {
    add_window(&windows, pairs + 2 * i * width, GRAM);
  }
  size_t begin = 0;
  while ((begin = find_window(&windows, data, size, begin, GRAM)) != NONE) {
    const uint8_t* after = find_replacement(data + begin, pairs, n, width);
    if (after) memcpy(data + begin, after, width);
    begin += after ? width : 1;
  }
}
