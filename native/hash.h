// SPDX-License-Identifier: MIT
//
// BLAKE3-256 of many pieces of memory.
#ifndef TVIXB_HASH_H
#define TVIXB_HASH_H

#include "view.h"

// Writes the digest of views[i] to digests[32 * i .. 32 * i + 32) for the n
// views; a view without data (NULL) gives zeros.
void tvixb_hash_many(const tvixb_view* views, size_t n, uint8_t* digests);

#endif  // TVIXB_HASH_H
