// SPDX-License-Identifier: MIT
//
// Writes the canonical encoding of a message in the ordinary form: the same
// bytes, with the elements of unsorted lists in sorted order.
#ifndef TVIXB_ENCODE_H
#define TVIXB_ENCODE_H

#include "hash.h"
#include "order.h"
#include "scan.h"
#include "schema.h"

// Number of bytes that tvixb_encode may write after an encoding.
#define TVIXB_ENCODE_SLACK ((size_t)64)

// Writes the encoding of a scanned message, which must not have unknown fields,
// to `encoded`, and up to TVIXB_ENCODE_SLACK undefined bytes after it. Returns
// the size of the encoding in bytes: that of the message. If the message
// changed since the scan, the size may be smaller, and the encoding consists of
// bytes of the message in an undefined order.
size_t tvixb_encode(const tvixb_scan* scan, const tvixb_order* order,
                    const tvixb_kind* kind, uint8_t* encoded);

// Hashes the encoding instead of writing it. Hashes at most as many bytes as
// the message has.
void tvixb_encode_stream(const tvixb_scan* scan, const tvixb_order* order,
                         const tvixb_kind* kind, tvixb_hash_stream* stream);

#endif  // TVIXB_ENCODE_H
