// SPDX-License-Identifier: MIT
//
// Writes the canonical encoding of a message in the ordinary form: the same
// bytes, the elements of its unsorted lists moved to their places.
#ifndef TVIXB_ENCODE_H
#define TVIXB_ENCODE_H

#include "hash.h"
#include "order.h"
#include "scan.h"
#include "schema.h"

// What tvixb_encode may write behind an encoding, in bytes.
#define TVIXB_ENCODE_SLACK ((size_t)64)

// Writes the encoding of a scanned message without any unknown field, and up to
// TVIXB_ENCODE_SLACK bytes behind it. Returns its size in bytes: that of the
// message. If the message changed since the scan, the size may be smaller, and
// the encoding consists of bytes of the message in an undefined order.
size_t tvixb_encode(const tvixb_scan* scan, const tvixb_order* order,
                    const tvixb_kind* kind, uint8_t* encoded);

// The same into a digest; hashes no more bytes than the message has.
void tvixb_encode_stream(const tvixb_scan* scan, const tvixb_order* order,
                         const tvixb_kind* kind, tvixb_hash_stream* stream);

#endif  // TVIXB_ENCODE_H
