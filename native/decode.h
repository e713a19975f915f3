// SPDX-License-Identifier: MIT
//
// Checks whether bytes decode as a message, with the same result as upb. Called
// if the scanner finds that a message is not in the ordinary form.
#ifndef TVIXB_DECODE_H
#define TVIXB_DECODE_H

#include <stdbool.h>

#include "schema.h"
#include "view.h"

// Returns whether the bytes decode. If not, sets *stop to the offset in bytes
// at which decoding stopped: that of the tag, length or value that could not be
// read, or of the first byte that is not UTF-8.
bool tvixb_decode_check(const tvixb_message* message, tvixb_view bytes,
                        size_t* stop);

// Returns whether the contents of all `encoded` fields of a message decode. The
// message itself must be in the ordinary form, apart from these contents. If
// not, sets *number to the number of the field, and *stop to the offset in its
// content.
bool tvixb_decode_check_encoded(const tvixb_message* message, tvixb_view bytes,
                                unsigned* number, size_t* stop);

#endif  // TVIXB_DECODE_H
