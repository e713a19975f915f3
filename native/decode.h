// SPDX-License-Identifier: MIT
//
// Whether bytes decode as a message, exactly as upb decides it. The scanner
// asks when it meets anything but the ordinary form.
#ifndef TVIXB_DECODE_H
#define TVIXB_DECODE_H

#include <stdbool.h>

#include "schema.h"
#include "view.h"

// True if the bytes decode. If not, *stop is the offset in bytes where decoding
// stopped: of the tag, length or value that could not be read, or of the first
// byte that is not UTF-8.
bool tvixb_decode_check(const tvixb_message* message, tvixb_view bytes,
                        size_t* stop);

#endif  // TVIXB_DECODE_H
