// SPDX-License-Identifier: MIT
//
// Finds which byte strings of a set, the needles, occur in a stream, and
// compares texts in which such strings were replaced. The core does not depend
// on this file.
//
// The rules of tvix_build.h for NULL, alignment, aliasing and retention apply
// here too. One thread at a time may use a scanner.
#ifndef TVIXB_REFERENCES_H
#define TVIXB_REFERENCES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* cffi: begin */

// A set of needles, which of them were found, and the end of the stream so far.
typedef struct tvixb_references tvixb_references;

// Returns a scanner for n needles: needle i is needles[ends[i - 1] .. ends[i]),
// the first one begins at 0. No needle is empty; equal needles are allowed.
// Copies the needles. Free the scanner with tvixb_references_free. Returns NULL
// if memory is exhausted.
tvixb_references* tvixb_references_new(const uint8_t* needles,
                                       const uint64_t* ends, size_t n);

// Scans the next bytes of the stream, also for needles that began in the bytes
// before.
void tvixb_references_scan(tvixb_references* scanner, const uint8_t* data,
                           size_t size);

// Ends the stream. The next bytes begin another one.
void tvixb_references_end_stream(tvixb_references* scanner);

// Returns n bytes, which the scanner owns: 1 if the needle was found in any
// stream, else 0.
const uint8_t* tvixb_references_found(const tvixb_references* scanner);

// Frees a scanner; NULL is ignored.
void tvixb_references_free(tvixb_references* scanner);

// Sets replaced[i], for i in 0 .. n, to 1 if the sizes[i] bytes of `new_data`
// from new_begins[i] on are those of `old_data` from old_begins[i] on with some
// occurrences of byte strings replaced, else to 0; it may be 0 if occurrences
// overlap. All ranges are within the data. `pairs` has pairs of strings of
// `width` bytes: the old string and then the new one. Those of i end before
// pair pair_ends[i]; the first ones begin at pair 0. Time for each i is
// O(size + number of pairs * width * number of replaced occurrences).
void tvixb_references_replaced(const uint8_t* old_data,
                               const uint64_t* old_begins,
                               const uint8_t* new_data,
                               const uint64_t* new_begins,
                               const uint64_t* sizes, const uint8_t* pairs,
                               const uint64_t* pair_ends, size_t width,
                               size_t n, uint8_t* replaced);

// Replaces strings in data[0 .. size), from its beginning on: where the first
// string of one of n pairs begins, its bytes become the second string of the
// pair, and the next string is sought behind it. All strings have `width`
// bytes, at least 4; `pairs` has 2 * n * width bytes, each string followed by
// its replacement. If several pairs have the same first string, the first one
// counts. Does not allocate.
void tvixb_references_replace(uint8_t* data, size_t size, const uint8_t* pairs,
                              size_t n, size_t width);

/* cffi: end */

#ifdef __cplusplus
}
#endif

#endif  // TVIXB_REFERENCES_H
