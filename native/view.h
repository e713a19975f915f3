// SPDX-License-Identifier: MIT
//
// Views of bytes that belong to another object. The function that returns a
// view states how long it is valid.
#ifndef TVIXB_VIEW_H
#define TVIXB_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct tvixb_view {
  const uint8_t* data;
  size_t size;
} tvixb_view;

// Returns the first 8 bytes of a key as a big-endian number; missing bytes are
// 0. If the prefixes of two keys differ, the keys have the order of their
// prefixes. If they are equal, compare the keys.
static inline uint64_t tvixb_view_prefix(tvixb_view key) {
  uint64_t prefix = 0;
  if (key.size >= 8) {
    memcpy(&prefix, key.data, 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    prefix = __builtin_bswap64(prefix);
#endif
    return prefix;
  }
  for (size_t i = 0; i < key.size; i++) {
    prefix |= (uint64_t)key.data[i] << (56 - 8 * i);
  }
  return prefix;
}

// As tvixb_view_prefix, but may read the bytes up to `end`, so that no branch
// depends on the size.
static inline uint64_t tvixb_view_prefix_before(tvixb_view key,
                                                const uint8_t* end) {
  if (__builtin_expect(key.size == 0 || end - key.data < 8, 0)) {
    return tvixb_view_prefix(key);
  }
  uint64_t prefix = tvixb_view_prefix((tvixb_view){key.data, 8});
  unsigned missing = key.size < 8 ? 64 - 8 * (unsigned)key.size : 0;
  return prefix >> missing << missing;
}

// Returns whether a view has the bytes of a NUL-terminated string.
static inline bool tvixb_view_is(tvixb_view view, const char* text) {
  return view.size == strlen(text) && memcmp(view.data, text, view.size) == 0;
}

// Returns the part of a path after the last slash.
static inline tvixb_view tvixb_view_base_name(tvixb_view path) {
  size_t begin = path.size;
  while (begin && path.data[begin - 1] != '/') begin--;
  return (tvixb_view){path.data + begin, path.size - begin};
}

// Compares views as unsigned bytes; a prefix is less than a longer view.
// Returns a negative number, 0 or a positive number.
static inline int tvixb_view_compare(tvixb_view a, tvixb_view b) {
  uint64_t a_prefix = tvixb_view_prefix(a), b_prefix = tvixb_view_prefix(b);
  if (a_prefix != b_prefix) return a_prefix < b_prefix ? -1 : 1;
  size_t shorter = a.size < b.size ? a.size : b.size;
  int order = shorter ? memcmp(a.data, b.data, shorter) : 0;
  return order ? order : (a.size > b.size) - (a.size < b.size);
}

#endif  // TVIXB_VIEW_H
