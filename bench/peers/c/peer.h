// SPDX-License-Identifier: MIT
//
// The program around a peer in C: reads a corpus, then does repetitions on
// command (bench/README.md). Knows nothing of what a repetition does.
#ifndef TVIX_BUILD_BENCH_PEER_H
#define TVIX_BUILD_BENCH_PEER_H

#include <stddef.h>
#include <stdint.h>

// The messages of a corpus: message i is data[begins[i] .. ends[i]).
typedef struct corpus {
  uint8_t* data;
  size_t size;
  uint64_t* begins;
  uint64_t* ends;
  size_t count;
} corpus;

// What a repetition finds out.
typedef struct findings {
  size_t valid;
  // 32 bytes a message, zeros where there is no digest.
  uint8_t* digests;
} findings;

// Serves repetitions over the corpus at `path` until stdin ends. Returns the
// exit status.
int peer_serve(const char* path,
               void (*repeat)(const corpus* messages, findings* found));

#endif  // TVIX_BUILD_BENCH_PEER_H
