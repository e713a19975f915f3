// SPDX-License-Identifier: MIT
//
// Validates UTF-8 as protobuf does for string fields: no overlong forms, no
// surrogates, no code points above U+10FFFF. NUL is valid.
#ifndef TVIXB_UTF8_H
#define TVIXB_UTF8_H

#include <stddef.h>
#include <stdint.h>

// Returns the number of leading bytes that are well-formed: `size` if all are,
// else the offset of the first ill-formed sequence.
size_t tvixb_utf8_valid(const uint8_t* data, size_t size);

#endif  // TVIXB_UTF8_H
