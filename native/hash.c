// SPDX-License-Identifier: MIT
//
// Hashes across messages: the chunks of many messages are the lanes of one
// kernel call, and then their parent nodes, level by level.
#include "hash.h"

#include <stdbool.h>

#include "blake3.h"
#include "hash_lanes.h"
#include "tvix_build.h"

// A group is hashed together: it holds so many chunks at most.
#define GROUP_CHUNKS 512
// A longer message fills the lanes by itself and goes to the official hasher.
#define MESSAGE_CHUNKS 64

const uint32_t tvixb_hash_iv[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

typedef struct tree {
  uint8_t* cvs;  // those of the level at hand, one behind another
  uint32_t count;
  uint8_t* digest;  // of the message
} tree;

typedef struct group {
  tvixb_hash_kernel* kernel;
  size_t cv_count;
  size_t job_count;
  size_t tree_count;
  tree trees[GROUP_CHUNKS];
  tvixb_hash_job jobs[GROUP_CHUNKS];
  tvixb_hash_job sorted[GROUP_CHUNKS];
  uint8_t cvs[GROUP_CHUNKS * TVIXB_HASH_CV_SIZE];
} group;

static size_t chunks_of(size_t size) {
  return size ? (size + TVIXB_HASH_CHUNK_SIZE - 1) / TVIXB_HASH_CHUNK_SIZE : 1;
}

static void hash_alone(tvixb_view view, uint8_t* digest) {
  blake3_hasher hasher;
  blake3_hasher_init(&hasher);
  blake3_hasher_update(&hasher, view.data, view.size);
  blake3_hasher_finalize(&hasher, digest, TVIXB_DIGEST_SIZE);
}

// A full chunk's place among the full ones: by counter, and roots last, so that
// neighbours differ in their data alone.
static size_t full_class(const tvixb_hash_job* job) {
  return job->end_flags & TVIXB_HASH_ROOT ? MESSAGE_CHUNKS : job->counter;
}

// Sorts the chunks (counting sorts): full ones by class, then the others, those
// with the most blocks first, so that lanes end together. Returns how many are
// full; place[c] is where class c of them ends.
static size_t sort_chunks(group* group, size_t place[MESSAGE_CHUNKS + 2]) {
  enum { BLOCKS = TVIXB_HASH_CHUNK_SIZE / TVIXB_HASH_BLOCK_SIZE };
  size_t by_blocks[BLOCKS + 2] = {0};
  for (size_t i = 0; i < group->job_count; i++) {
    const tvixb_hash_job* job = &group->jobs[i];
    if (job->size == TVIXB_HASH_CHUNK_SIZE) {
      place[full_class(job) + 1]++;
    } else {
      by_blocks[BLOCKS - tvixb_hash_job_blocks(job) + 1]++;
    }
  }
  for (size_t i = 1; i <= MESSAGE_CHUNKS + 1; i++) place[i] += place[i - 1];
  size_t full = place[MESSAGE_CHUNKS + 1];
  by_blocks[0] = full;
  for (size_t i = 1; i <= BLOCKS; i++) by_blocks[i] += by_blocks[i - 1];
  for (size_t i = 0; i < group->job_count; i++) {
    const tvixb_hash_job* job = &group->jobs[i];
    size_t* next = job->size == TVIXB_HASH_CHUNK_SIZE
                       ? &place[full_class(job)]
                       : &by_blocks[BLOCKS - tvixb_hash_job_blocks(job)];
    group->sorted[(*next)++] = *job;
  }
  return full;
}

// The official kernels are the fastest for full lanes of full chunks; the rest
// goes to the kernel that takes lanes as they come.
static void run_chunks(group* group) {
  size_t place[MESSAGE_CHUNKS + 2] = {0};
  size_t full = sort_chunks(group, place);
  size_t rest = 0, begin = 0;
  for (size_t i = 0; begin < full; i++) {
    size_t lanes = (place[i] - begin) / TVIXB_HASH_OFFICIAL_LANES *
                   TVIXB_HASH_OFFICIAL_LANES;
    tvixb_hash_jobs_official(group->sorted + begin, lanes);
    for (size_t j = begin + lanes; j < place[i]; j++) {
      group->sorted[rest++] = group->sorted[j];
    }
    begin = place[i];
  }
  size_t partial = group->job_count - full;
  memmove(group->sorted + rest, group->sorted + full,
          partial * sizeof *group->sorted);
  group->kernel(group->sorted, rest + partial);
}

// Runs the parents of one level of all trees; false if every tree is done. A
// parent's chaining value takes the place of an earlier pair.
static bool run_level(group* group) {
  size_t count = 0;
  for (size_t i = 0; i < group->tree_count; i++) {
    tree* tree = &group->trees[i];
    for (uint32_t j = 0; j + 1 < tree->count; j += 2) {
      bool root = tree->count == 2;
      group->jobs[count++] = (tvixb_hash_job){
          .data = tree->cvs + (size_t)j * TVIXB_HASH_CV_SIZE,
          .out = root ? tree->digest
                      : tree->cvs + (size_t)j / 2 * TVIXB_HASH_CV_SIZE,
          .size = TVIXB_HASH_BLOCK_SIZE,
          .start_flags = TVIXB_HASH_PARENT,
          .end_flags = root ? TVIXB_HASH_ROOT : 0,
      };
    }
  }
  group->kernel(group->jobs, count);
  for (size_t i = 0; i < group->tree_count; i++) {
    tree* tree = &group->trees[i];
    if (tree->count > 2 && tree->count % 2) {
      memcpy(tree->cvs + (size_t)tree->count / 2 * TVIXB_HASH_CV_SIZE,
             tree->cvs + (size_t)(tree->count - 1) * TVIXB_HASH_CV_SIZE,
             TVIXB_HASH_CV_SIZE);
    }
    tree->count = tree->count == 2 ? 1 : (tree->count + 1) / 2;
  }
  return count > 0;
}

static void run_group(group* group) {
  run_chunks(group);
  while (run_level(group)) {
  }
  group->cv_count = group->job_count = 0;
  group->tree_count = 0;
}

// A part of a long message fills the lanes by itself; the rest are jobs.
static void add_message(group* group, tvixb_view view, uint8_t* digest) {
  size_t chunks = chunks_of(view.size);
  if (group->cv_count + chunks > GROUP_CHUNKS) run_group(group);
  uint8_t* cvs = group->cvs + group->cv_count * TVIXB_HASH_CV_SIZE;
  size_t first =
      (chunks - 1) / TVIXB_HASH_OFFICIAL_LANES * TVIXB_HASH_OFFICIAL_LANES;
  tvixb_hash_chunks_official(view.data, first, cvs);
  for (size_t i = first; i < chunks; i++) {
    size_t begin = i * TVIXB_HASH_CHUNK_SIZE;
    size_t left = view.size - begin;
    group->jobs[group->job_count++] = (tvixb_hash_job){
        .data = view.data + begin,
        .out = chunks == 1 ? digest : cvs + i * TVIXB_HASH_CV_SIZE,
        .counter = i,
        .size =
            (uint32_t)(left < TVIXB_HASH_CHUNK_SIZE ? left
                                                    : TVIXB_HASH_CHUNK_SIZE),
        .start_flags = TVIXB_HASH_CHUNK_START,
        .end_flags = TVIXB_HASH_CHUNK_END | (chunks == 1 ? TVIXB_HASH_ROOT : 0),
    };
  }
  group->cv_count += chunks;
  group->trees[group->tree_count++] = (tree){cvs, (uint32_t)chunks, digest};
}

tvixb_hash_kernel* tvixb_hash_best_kernel(void) {
#ifdef TVIXB_HAVE_AVX512
  if (tvixb_cpu_best() == TVIXB_CPU_AVX512) return tvixb_hash_jobs_avx512;
#endif
  return tvixb_hash_jobs_official;
}

void tvixb_hash_many(const tvixb_view* views, size_t n, uint8_t* digests) {
  tvixb_hash_many_with(tvixb_hash_best_kernel(), views, n, digests);
}

void tvixb_hash_many_with(tvixb_hash_kernel* kernel, const tvixb_view* views,
                          size_t n, uint8_t* digests) {
  group group;
  group.kernel = kernel;
  group.cv_count = group.job_count = group.tree_count = 0;
  for (size_t i = 0; i < n; i++, digests += TVIXB_DIGEST_SIZE) {
    if (!views[i].data) continue;
    if (views[i].size > MESSAGE_CHUNKS * (size_t)TVIXB_HASH_CHUNK_SIZE) {
      hash_alone(views[i], digests);
    } else {
      add_message(&group, views[i], digests);
    }
  }
  if (group.cv_count) run_group(&group);
}

void tvixb_hash_stream_begin(tvixb_hash_stream* stream) {
  blake3_hasher_init(&stream->hasher);
  stream->used = 0;
}

static void flush(tvixb_hash_stream* stream) {
  blake3_hasher_update(&stream->hasher, stream->buffer, stream->used);
  stream->used = 0;
}

void tvixb_hash_stream_put(tvixb_hash_stream* stream, const uint8_t* data,
                           size_t size) {
  while (size) {
    size_t room = sizeof stream->buffer - stream->used;
    size_t now = size < room ? size : room;
    memcpy(stream->buffer + stream->used, data, now);
    stream->used += now;
    if (stream->used == sizeof stream->buffer) flush(stream);
    data += now;
    size -= now;
  }
}

void tvixb_hash_stream_end(tvixb_hash_stream* stream, uint8_t* digest) {
  flush(stream);
  blake3_hasher_finalize(&stream->hasher, digest, TVIXB_DIGEST_SIZE);
}
