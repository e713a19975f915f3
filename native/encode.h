// SPDX-License-Identifier: MIT
//
// Writes the canonical encoding of a message in the ordinary form: the same
// bytes, the elements of its unsorted lists moved to their places.
#ifndef TVIXB_ENCODE_H
#define TVIXB_ENCODE_H

#include "order.h"
#include "scan.h"
#include "schema.h"
#include "view.h"

// Takes the next piece of an encoding.
typedef void tvixb_encode_put(void* state, const uint8_t* data, size_t size);

// Puts the encoding piece by piece, bytes.size bytes in all. The scan and the
// order are those of these bytes, without any unknown field.
void tvixb_encode(const tvixb_scan* scan, const tvixb_order* order,
                  const tvixb_kind* kind, tvixb_view bytes,
                  tvixb_encode_put* put, void* state);

#endif  // TVIXB_ENCODE_H
