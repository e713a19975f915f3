// SPDX-License-Identifier: MIT
//
// Computes BLAKE3-256 digests.
#ifndef TVIXB_HASH_H
#define TVIXB_HASH_H

#include "blake3.h"
#include "view.h"

// Writes the digest of views[i] to digests[32 * i .. 32 * i + 32) for each i <
// n. Skips views whose data is NULL.
void tvixb_hash_many(const tvixb_view* views, size_t n, uint8_t* digests);

// Size of a part in bytes. A long message can be hashed in parts, in any order
// and by several threads. The last part has 1 to this many bytes, all others
// have this many.
#define TVIXB_HASH_PART_SIZE ((size_t)256 * 1024)

// Writes the chaining value (32 bytes) of part `index` of a message to `cv`.
// The message must have at least two parts.
void tvixb_hash_part(const uint8_t* data, size_t size, uint64_t index,
                     uint8_t* cv);

// Writes the digest of a message of n parts, n >= 2. Their chaining values lie
// back to back in `cvs`, which is overwritten.
void tvixb_hash_join(uint8_t* cvs, size_t n, uint8_t* digest);

#define TVIXB_HASH_STREAM_BUFFER ((size_t)128 * 1024)

// Hashes a message piece by piece.
typedef struct tvixb_hash_stream {
  blake3_hasher hasher;
  size_t used;
  uint8_t buffer[TVIXB_HASH_STREAM_BUFFER];  // enough to fill the lanes
} tvixb_hash_stream;

// Begins a message.
void tvixb_hash_stream_begin(tvixb_hash_stream* stream);

// Appends bytes to the message.
void tvixb_hash_stream_put(tvixb_hash_stream* stream, const uint8_t* data,
                           size_t size);

// Ends the message and writes its digest (32 bytes).
void tvixb_hash_stream_end(tvixb_hash_stream* stream, uint8_t* digest);

#endif  // TVIXB_HASH_H
