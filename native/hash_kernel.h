// SPDX-License-Identifier: MIT
//
// A kernel that runs an independent job in each lane, with its own data,
// length, counter and flags. A lane whose job is complete keeps its chaining
// value.
//
// The file of an instruction set includes this file. It must first define
// LANES; `vector`, which has a word for each lane; the operations on vectors;
// gather, which loads 16 bytes of every fourth lane into a vector; scatter,
// which stores two vectors into every fourth lane; and block_of, which returns
// the block of a job at `begin`, with 0 beyond the end of its data, in the data
// or in the copy. It may define PARK(vector), which keeps a vector in memory
// until its next use.
#ifndef TVIXB_HASH_KERNEL_H
#define TVIXB_HASH_KERNEL_H

#include <assert.h>

#ifndef PARK
#define PARK(vector) (void)0
#endif

#define EACH_OF_4 _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++)
#define EACH_OF_8 _Pragma("GCC unroll 8") for (int i = 0; i < 8; i++)
#define EACH_LANE _Pragma("GCC unroll 16") for (int i = 0; i < LANES; i++)

// The message words of each round.
static const uint8_t schedule[7][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8},
    {3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1},
    {10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6},
    {12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4},
    {9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7},
    {11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13},
};

// Four quarter rounds (BLAKE3 paper, section 2.2): those of the columns, or
// with `turn` 1 those of the diagonals. They are interleaved, because a single
// one would wait for its own results.
#define A v[i]
#define B v[4 + (i + turn) % 4]
#define C v[8 + (i + 2 * turn) % 4]
#define D v[12 + (i + 3 * turn) % 4]
INLINE void half_round(vector v[16], const vector m[16], const uint8_t words[8],
                       int turn) {
  EACH_OF_4 A = add(A, m[words[2 * i]]);
  EACH_OF_4 A = add(A, B);
  EACH_OF_4 D = ror16(xor(D, A));
  EACH_OF_4 C = add(C, D);
  EACH_OF_4 B = xor(B, C);
  PARK(v[8]);
  EACH_OF_4 B = ror12(B);
  EACH_OF_4 A = add(A, m[words[2 * i + 1]]);
  EACH_OF_4 A = add(A, B);
  EACH_OF_4 D = ror8(xor(D, A));
  EACH_OF_4 C = add(C, D);
  EACH_OF_4 B = xor(B, C);
  PARK(v[8]);
  EACH_OF_4 B = ror7(B);
}
#undef A
#undef B
#undef C
#undef D

INLINE void rounds(vector v[16], const vector m[16]) {
#pragma GCC unroll 7
  for (int i = 0; i < 7; i++) {
    half_round(v, m, schedule[i], 0);
    half_round(v, m, schedule[i] + 8, 1);
  }
}

// Transposes 4 x 4 words in every 16 bytes of four rows.
INLINE void transpose(vector r[4]) {
  vector a = low32(r[0], r[1]), b = high32(r[0], r[1]);
  vector c = low32(r[2], r[3]), d = high32(r[2], r[3]);
  r[0] = low64(a, c);
  r[1] = high64(a, c);
  r[2] = low64(b, d);
  r[3] = high64(b, d);
}

// Loads four words of every lane.
INLINE void load_words(const uint8_t* const at[LANES], size_t offset,
                       vector words[4]) {
  EACH_OF_4 words[i] = gather(at + i, offset);
  transpose(words);
}

// Stores eight words of every lane.
INLINE void store_words(const tvixb_hash_job* jobs, vector words[8]) {
  transpose(words);
  transpose(words + 4);
  EACH_OF_4 scatter(jobs + i, words[i], words[i + 4]);
}

typedef struct lanes {
  vector counter_low, counter_high, size, start_flags, end_flags;
} lanes;

static_assert(offsetof(tvixb_hash_job, size) ==
                      offsetof(tvixb_hash_job, counter) + 8 &&
                  offsetof(tvixb_hash_job, start_flags) ==
                      offsetof(tvixb_hash_job, counter) + 12 &&
                  offsetof(tvixb_hash_job, end_flags) ==
                      offsetof(tvixb_hash_job, counter) + 13 &&
                  sizeof(tvixb_hash_job) >=
                      offsetof(tvixb_hash_job, counter) + 16,
              "loaded as four words");

INLINE lanes load_lanes(const tvixb_hash_job* jobs) {
  const uint8_t* at[LANES];
  EACH_LANE at[i] = (const uint8_t*)&jobs[i];
  vector words[4];
  load_words(at, offsetof(tvixb_hash_job, counter), words);
  const vector byte = broadcast(0xff);
  return (lanes){words[0], words[1], words[2], and(words[3], byte),
                 and(shift_right_8(words[3]), byte)};
}

// Loads a block of every lane. Unless `whole`, which says that all lanes have a
// whole block, reads nothing beyond the end of a lane's data and uses 0
// instead.
INLINE void load_block(const tvixb_hash_job* jobs, size_t begin, bool whole,
                       vector m[16]) {
  const uint8_t* at[LANES];
  uint8_t copies[LANES][2 * TVIXB_HASH_BLOCK_SIZE];
  EACH_LANE at[i] =
      whole ? jobs[i].data + begin : block_of(&jobs[i], begin, copies[i]);
  EACH_OF_4 load_words(at, (size_t)i * 16, m + (size_t)i * 4);
  for (int i = 0; i < 16; i++) PARK(m[i]);
}

// Runs LANES jobs. The first must have the most blocks.
TARGET __attribute__((noinline)) static void hash_lanes(
    const tvixb_hash_job* jobs) {
  const lanes lane = load_lanes(jobs);
  const vector block_size = broadcast(TVIXB_HASH_BLOCK_SIZE);
  vector cv[8];
  EACH_OF_8 cv[i] = broadcast(tvixb_hash_iv[i]);
  size_t blocks = tvixb_hash_job_blocks(&jobs[0]);
  size_t shortest = jobs[0].size;
  EACH_LANE if (jobs[i].size < shortest) shortest = jobs[i].size;
  size_t whole_blocks = shortest / TVIXB_HASH_BLOCK_SIZE;
  vector left = lane.size;
  for (size_t block = 0; block < blocks; block++) {
    size_t begin = block * TVIXB_HASH_BLOCK_SIZE;
    vector v[16], m[16];
    if (block < whole_blocks) {
      load_block(jobs, begin, true, m);
    } else {
      load_block(jobs, begin, false, m);
    }
    const vector size = if_greater(left, block_size, block_size, left);
    EACH_OF_8 v[i] = cv[i];
    EACH_OF_4 v[8 + i] = broadcast(tvixb_hash_iv[i]);
    v[12] = lane.counter_low;
    v[13] = lane.counter_high;
    v[14] = size;
    v[15] = if_greater(left, block_size, broadcast(0), lane.end_flags);
    if (block == 0) v[15] = xor(v[15], lane.start_flags);
    rounds(v, m);
    // A job without data has one block, too, which is empty.
    const vector done = broadcast(block == 0 ? UINT32_MAX : 0);
    EACH_OF_8 cv[i] = if_greater(left, done, xor(v[i], v[i + 8]), cv[i]);
    left = sub(left, size);
  }
  store_words(jobs, cv);
}

// Runs jobs, which must be in descending order of their number of blocks.
static inline void hash_jobs(const tvixb_hash_job* jobs, size_t count) {
  for (; count >= LANES; jobs += LANES, count -= LANES) hash_lanes(jobs);
  if (count == 0) return;
  uint8_t nothing[TVIXB_HASH_CV_SIZE];
  tvixb_hash_job rest[LANES];
  for (size_t i = 0; i < LANES; i++) {
    rest[i] =
        i < count ? jobs[i] : (tvixb_hash_job){.data = nothing, .out = nothing};
  }
  hash_lanes(rest);
}

#endif  // TVIXB_HASH_KERNEL_H
