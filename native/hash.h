// SPDX-License-Identifier: MIT
//
// BLAKE3-256 of many pieces of memory.
#ifndef TVIXB_HASH_H
#define TVIXB_HASH_H

#include "blake3.h"
#include "view.h"

// Writes the digest of views[i] to digests[32 * i .. 32 * i + 32) for the n
// views; a view without data (NULL) is skipped.
void tvixb_hash_many(const tvixb_view* views, size_t n, uint8_t* digests);

// A long message can be hashed in parts, in any order and by several threads:
// all but the last have so many bytes, the last has at least one.
#define TVIXB_HASH_PART_SIZE ((size_t)256 * 1024)

// Writes the chaining value, 32 bytes, of the part with that index of a message
// that has at least two.
void tvixb_hash_part(const uint8_t* data, size_t size, uint64_t index,
                     uint8_t* cv);

// Writes the digest of a message of n parts, n >= 2; their chaining values lie
// back to back and are overwritten.
void tvixb_hash_join(uint8_t* cvs, size_t n, uint8_t* digest);

#define TVIXB_HASH_STREAM_BUFFER ((size_t)128 * 1024)

// Hashes one message that comes in pieces.
typedef struct tvixb_hash_stream {
  blake3_hasher hasher;
  size_t used;
  uint8_t buffer[TVIXB_HASH_STREAM_BUFFER];  // enough to fill the lanes
} tvixb_hash_stream;

void tvixb_hash_stream_begin(tvixb_hash_stream* stream);

void tvixb_hash_stream_put(tvixb_hash_stream* stream, const uint8_t* data,
                           size_t size);

void tvixb_hash_stream_end(tvixb_hash_stream* stream, uint8_t* digest);

#endif  // TVIXB_HASH_H
