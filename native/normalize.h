// SPDX-License-Identifier: MIT
//
// Rewrites a message that decodes, but is not in the ordinary form, to the
// ordinary form: fields in ascending order, embedded messages merged, only the
// last value of a field and the last member of a oneof, shortest varints, no
// default values. Lists keep their order. So the scanner handles only one form.
#ifndef TVIXB_NORMALIZE_H
#define TVIXB_NORMALIZE_H

#include <stdbool.h>

#include "memory.h"
#include "schema.h"
#include "tvix_build.h"
#include "view.h"

// Returns an upper bound of the size in bytes of the ordinary form of a message
// of `size` bytes, saturated at SIZE_MAX. Only numbers that were not packed can
// make it longer than the message.
size_t tvixb_normal_size(const tvixb_kind* kind, size_t size);

// Sets *normal to the ordinary form of a message, in the arena. The bytes must
// decode (tvixb_decode_check). *normal decodes to the same message, except that
// each message keeps only the first of its unknown fields. Returns false if an
// allocation fails.
bool tvixb_normalize(const tvixb_kind* kind, tvixb_view bytes,
                     tvixb_arena* arena, tvixb_view* normal);

#endif  // TVIXB_NORMALIZE_H
