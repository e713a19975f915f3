// SPDX-License-Identifier: MIT
//
// Hashes ranges of a buffer that contain any bytes.
#include "hash.h"
#include "ranges.h"
#include "tvix_build.h"

#define WINDOW_COUNT 256

tvixb_status tvixb_blake3_many(const uint8_t* data, size_t size,
                               const uint64_t* begins, const uint64_t* ends,
                               size_t n, uint8_t* digests) {
  if (!tvixb_ranges_fit(begins, ends, n, size)) return TVIXB_BAD_RANGE;
  while (n) {
    tvixb_view window[WINDOW_COUNT];
    size_t count = n < WINDOW_COUNT ? n : WINDOW_COUNT;
    for (size_t i = 0; i < count; i++) {
      window[i] = tvixb_ranges_view(data, size, begins[i], ends[i]);
    }
    tvixb_hash_many(window, count, digests);
    begins += count;
    ends += count;
    digests += count * TVIXB_DIGEST_SIZE;
    n -= count;
  }
  return TVIXB_OK;
}
