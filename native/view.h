// SPDX-License-Identifier: MIT
//
// Borrowed bytes. Whoever hands out a view says how long its bytes live.
#ifndef TVIXB_VIEW_H
#define TVIXB_VIEW_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct tvixb_view {
  const uint8_t* data;
  size_t size;
} tvixb_view;

// Compares as unsigned bytes, a prefix before what is longer.
static inline int tvixb_view_compare(tvixb_view a, tvixb_view b) {
  size_t shorter = a.size < b.size ? a.size : b.size;
  int order = shorter ? memcmp(a.data, b.data, shorter) : 0;
  return order ? order : (a.size > b.size) - (a.size < b.size);
}

// The first 8 bytes as a number, missing ones as 0: where two differ, the keys
// compare like them; where they are equal, only the bytes tell.
static inline uint64_t tvixb_view_prefix(tvixb_view key) {
  uint64_t prefix = 0;
  size_t size = key.size < 8 ? key.size : 8;
  for (size_t i = 0; i < size; i++) {
    prefix |= (uint64_t)key.data[i] << (56 - 8 * i);
  }
  return prefix;
}

#endif  // TVIXB_VIEW_H
