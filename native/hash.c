// SPDX-License-Identifier: MIT
#include "hash.h"

#include "blake3.h"
#include "tvix_build.h"

void tvixb_hash_many(const tvixb_view* views, size_t n, uint8_t* digests) {
  for (size_t i = 0; i < n; i++, digests += TVIXB_DIGEST_SIZE) {
    if (!views[i].data) {
      memset(digests, 0, TVIXB_DIGEST_SIZE);
      continue;
    }
    blake3_hasher hasher;
    blake3_hasher_init(&hasher);
    blake3_hasher_update(&hasher, views[i].data, views[i].size);
    blake3_hasher_finalize(&hasher, digests, TVIXB_DIGEST_SIZE);
  }
}
