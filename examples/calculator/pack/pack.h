// SPDX-License-Identifier: MIT
// Run-length encoding: each run of a byte is its length, 1 to 255, and the
// byte.
#ifndef PACK_H
#define PACK_H

#include <stdio.h>

// Encodes a stream.
void pack(FILE* from, FILE* to);

// Decodes a stream. Returns 0, or -1 if it is truncated.
int unpack(FILE* from, FILE* to);

#endif
