// SPDX-License-Identifier: MIT
#ifndef GREET_H
#define GREET_H

// Writes a greeting for `name` to `out`, at most `size` bytes with the NUL.
// Returns the greeting's full length, as snprintf does.
int greet(char *out, unsigned long size, const char *name);

#endif
