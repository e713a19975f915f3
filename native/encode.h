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

// Writes bytes.size bytes to `encoded`, which does not overlap the input. The
// scan and the order are those of these bytes, without any unknown field.
void tvixb_encode(const tvixb_scan* scan, const tvixb_order* order,
                  const tvixb_kind* kind, tvixb_view bytes, uint8_t* encoded);

#endif  // TVIXB_ENCODE_H
