// SPDX-License-Identifier: MIT
//
// Rewrites a message that decodes, but is encoded in some other than the
// ordinary form, to the ordinary form: fields in ascending order, merges, last
// values and oneof switches carried out, shortest varints, no defaults. Lists
// keep their order. The scanner then needs to know that form only.
#ifndef TVIXB_NORMALIZE_H
#define TVIXB_NORMALIZE_H

#include <stdbool.h>

#include "memory.h"
#include "schema.h"
#include "tvix_build.h"
#include "view.h"

// How many bytes the ordinary form of a message of this size has at most. None
// is longer than what was read but for numbers that were not packed; SIZE_MAX
// if it is too much.
size_t tvixb_normal_size(const tvixb_kind* kind, size_t size);

// The bytes must decode (tvixb_decode_check). *normal lies in the arena; it
// decodes to the same message, except that of
// the unknown fields of each message only the first one is kept. False if
// memory is out.
bool tvixb_normalize(const tvixb_kind* kind, tvixb_view bytes,
                     tvixb_arena* arena, tvixb_view* normal);

#endif  // TVIXB_NORMALIZE_H
