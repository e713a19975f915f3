// SPDX-License-Identifier: MIT
//
// UTF-8 as protobuf checks it in string fields: no overlong forms, no
// surrogates, nothing above U+10FFFF; NUL is fine.
#ifndef TVIXB_UTF8_H
#define TVIXB_UTF8_H

#include <stddef.h>
#include <stdint.h>

// How many bytes from the beginning are well-formed: `size` if all are,
// otherwise the offset of the first ill-formed sequence.
size_t tvixb_utf8_valid(const uint8_t* data, size_t size);

#endif  // TVIXB_UTF8_H
