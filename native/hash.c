// SPDX-License-Identifier: MIT
//
// Hashes many messages at once: a kernel call has chunks of several messages in
// its lanes, and then their parent nodes, level by level.
#include "hash.h"

#include <assert.h>
#include <stdbool.h>

#include "blake3.h"
#include "hash_lanes.h"
#include "tvix_build.h"

// Capacity of a group in chunks. The parents of a group are hashed together.
#define GROUP_CHUNKS 512
// A message with more chunks than this fills the lanes by itself and is hashed
// by the BLAKE3 library.
#define MESSAGE_CHUNKS 64
// This number of messages leaves most lanes empty, so that the BLAKE3 library
// is faster.
#define ALONE_COUNT 2
#define PART_CHUNKS (TVIXB_HASH_PART_SIZE / TVIXB_HASH_CHUNK_SIZE)

// Chunks wait in buckets until they fill the lanes. Whole chunks are grouped by
// counter if the kernel is faster then, other chunks by number of blocks.
#define CHUNK_BLOCKS (TVIXB_HASH_CHUNK_SIZE / TVIXB_HASH_BLOCK_SIZE)
#define WHOLE_BUCKETS (TVIXB_HASH_LANES_MAX + 1)
#define BUCKETS (WHOLE_BUCKETS + CHUNK_BLOCKS)

// The chunks that wait at the end must fit in the jobs of a group.
static_assert(BUCKETS * (TVIXB_HASH_LANES_MAX - 1) <= GROUP_CHUNKS, "fits");

const uint32_t tvixb_hash_iv[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

// A message of more than one chunk.
typedef struct tree {
  uint8_t* cvs;  // chaining values of the current level, back to back
  uint32_t count;
  uint8_t* digest;  // of the message
} tree;

typedef struct group {
  const tvixb_hash_kernel* kernel;
  size_t cv_count;
  size_t tree_count;
  tree trees[GROUP_CHUNKS];
  uint8_t waiting[BUCKETS];
  tvixb_hash_job buckets[BUCKETS][TVIXB_HASH_LANES_MAX];
  tvixb_hash_job jobs[GROUP_CHUNKS];
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

// Makes the BLAKE3 library detect the CPU before there are threads: up to
// version 1.4, it stores the result in a variable that is not atomic.
__attribute__((constructor)) static void detect_cpu(void) {
  uint8_t digest[TVIXB_DIGEST_SIZE];
  hash_alone((tvixb_view){0}, digest);
}

// Writes the chaining values of `count` whole chunks of a message. The chunks
// fill the lanes; `counter` is the number of the first.
static void hash_chunks(const tvixb_hash_kernel* kernel, const uint8_t* data,
                        size_t count, uint64_t counter, uint8_t* cvs) {
  const uint8_t* inputs[MESSAGE_CHUNKS];
  for (size_t i = 0; i < count; i++) {
    inputs[i] = data + i * TVIXB_HASH_CHUNK_SIZE;
  }
  kernel->library_hash_many(inputs, count, CHUNK_BLOCKS, tvixb_hash_iv, counter,
                            true, 0, TVIXB_HASH_CHUNK_START,
                            TVIXB_HASH_CHUNK_END, cvs);
}

// Returns the bucket of a job: the more blocks, the lower the bucket.
static size_t bucket_of(const tvixb_hash_job* job, bool by_counter) {
  if (job->size < TVIXB_HASH_CHUNK_SIZE) {
    return BUCKETS - tvixb_hash_job_blocks(job);
  }
  if (!by_counter) return 0;
  if (job->end_flags & TVIXB_HASH_ROOT) return TVIXB_HASH_LANES_MAX;
  return job->counter % TVIXB_HASH_LANES_MAX;
}

static void add_job(group* group, tvixb_hash_job job) {
  size_t bucket = bucket_of(&job, group->kernel->by_counter);
  group->buckets[bucket][group->waiting[bucket]++] = job;
  if (group->waiting[bucket] == TVIXB_HASH_LANES_MAX) {
    group->kernel->run(group->buckets[bucket], TVIXB_HASH_LANES_MAX);
    group->waiting[bucket] = 0;
  }
}

// Runs the jobs that still wait.
static void run_rest(group* group) {
  size_t count = 0;
  for (size_t i = 0; i < BUCKETS; i++) {
    for (size_t j = 0; j < group->waiting[i]; j++) {
      group->jobs[count++] = group->buckets[i][j];
    }
    group->waiting[i] = 0;
  }
  group->kernel->run(group->jobs, count);
}

static tvixb_hash_job parent_job(const uint8_t* children, uint8_t* out,
                                 bool root) {
  return (tvixb_hash_job){
      .data = children,
      .out = out,
      .size = TVIXB_HASH_BLOCK_SIZE,
      .start_flags = TVIXB_HASH_PARENT,
      .end_flags = root ? TVIXB_HASH_ROOT : 0,
  };
}

// Runs the parents of one level of all trees. The chaining value of a parent
// overwrites that of its own or an earlier child.
static void run_level(group* group) {
  size_t count = 0;
  for (size_t i = 0; i < group->tree_count; i++) {
    tree* tree = &group->trees[i];
    for (uint32_t j = 0; j + 1 < tree->count; j += 2) {
      bool root = tree->count == 2;
      uint8_t* out = tree->cvs + (size_t)j / 2 * TVIXB_HASH_CV_SIZE;
      group->jobs[count++] =
          parent_job(tree->cvs + (size_t)j * TVIXB_HASH_CV_SIZE,
                     root ? tree->digest : out, root);
    }
  }
  group->kernel->run(group->jobs, count);
  size_t left = 0;
  for (size_t i = 0; i < group->tree_count; i++) {
    tree tree = group->trees[i];
    if (tree.count == 2) continue;
    if (tree.count % 2) {
      memcpy(tree.cvs + (size_t)tree.count / 2 * TVIXB_HASH_CV_SIZE,
             tree.cvs + (size_t)(tree.count - 1) * TVIXB_HASH_CV_SIZE,
             TVIXB_HASH_CV_SIZE);
    }
    tree.count = (tree.count + 1) / 2;
    group->trees[left++] = tree;
  }
  group->tree_count = left;
}

static void run_group(group* group) {
  run_rest(group);
  while (group->tree_count) run_level(group);
  group->cv_count = 0;
}

static tvixb_hash_job chunk_job(tvixb_view view, size_t index, uint8_t* out) {
  size_t begin = index * TVIXB_HASH_CHUNK_SIZE;
  size_t left = view.size - begin;
  return (tvixb_hash_job){
      .data = view.data + begin,
      .out = out,
      .counter = index,
      .size = (uint32_t)(left < TVIXB_HASH_CHUNK_SIZE ? left
                                                      : TVIXB_HASH_CHUNK_SIZE),
      .start_flags = TVIXB_HASH_CHUNK_START,
      .end_flags = TVIXB_HASH_CHUNK_END,
  };
}

// Adds a message. Hashes its first chunks at once, as far as they fill the
// lanes, and makes jobs of the rest.
static void add_message(group* group, tvixb_view view, uint8_t* digest) {
  size_t chunks = chunks_of(view.size);
  if (chunks == 1) {
    tvixb_hash_job job = chunk_job(view, 0, digest);
    job.end_flags |= TVIXB_HASH_ROOT;
    add_job(group, job);
    return;
  }
  if (group->cv_count + chunks > GROUP_CHUNKS) run_group(group);
  uint8_t* cvs = group->cvs + group->cv_count * TVIXB_HASH_CV_SIZE;
  size_t lanes = group->kernel->library_lanes;
  size_t first = view.size / TVIXB_HASH_CHUNK_SIZE / lanes * lanes;
  if (first) hash_chunks(group->kernel, view.data, first, 0, cvs);
  for (size_t i = first; i < chunks; i++) {
    add_job(group, chunk_job(view, i, cvs + i * TVIXB_HASH_CV_SIZE));
  }
  group->cv_count += chunks;
  group->trees[group->tree_count++] = (tree){cvs, (uint32_t)chunks, digest};
}

static const tvixb_hash_kernel* kernel_of(tvixb_cpu_level level) {
#ifdef TVIXB_HAVE_AVX512
  if (level == TVIXB_CPU_AVX512) return &tvixb_hash_avx512;
#endif
#ifdef TVIXB_HAVE_AVX2
  if (level == TVIXB_CPU_AVX2) return &tvixb_hash_avx2;
#endif
#ifdef TVIXB_HAVE_NEON
  if (level == TVIXB_CPU_NEON) return &tvixb_hash_neon;
#endif
  (void)level;
  return &tvixb_hash_plain;
}

void tvixb_hash_many(const tvixb_view* views, size_t n, uint8_t* digests) {
  if (n <= ALONE_COUNT) {
    for (size_t i = 0; i < n; i++) {
      if (views[i].data) hash_alone(views[i], digests + i * TVIXB_DIGEST_SIZE);
    }
    return;
  }
  tvixb_hash_many_with(tvixb_cpu_best(), views, n, digests);
}

void tvixb_hash_many_with(tvixb_cpu_level level, const tvixb_view* views,
                          size_t n, uint8_t* digests) {
  group group;
  group.kernel = kernel_of(level);
  group.cv_count = group.tree_count = 0;
  memset(group.waiting, 0, sizeof group.waiting);
  for (size_t i = 0; i < n; i++, digests += TVIXB_DIGEST_SIZE) {
    if (!views[i].data) continue;
    if (views[i].size > MESSAGE_CHUNKS * (size_t)TVIXB_HASH_CHUNK_SIZE) {
      hash_alone(views[i], digests);
    } else {
      add_message(&group, views[i], digests);
    }
  }
  run_group(&group);
}

// Joins the nodes of a level, and of the levels above it, until one node is
// left, and writes that to `out`, which may be `cvs`. Overwrites `cvs`.
static void join(const tvixb_hash_kernel* kernel, uint8_t* cvs, size_t count,
                 bool root, uint8_t* out) {
  tvixb_hash_job jobs[64];
  for (; count > 1; count = (count + 1) / 2) {
    size_t used = 0;
    for (size_t i = 0; i < count / 2; i++) {
      jobs[used++] =
          parent_job(cvs + 2 * i * TVIXB_HASH_CV_SIZE,
                     cvs + i * TVIXB_HASH_CV_SIZE, root && count == 2);
      if (used < 64 && i + 1 < count / 2) continue;
      kernel->run(jobs, used);
      used = 0;
    }
    if (count % 2) {
      memcpy(cvs + count / 2 * TVIXB_HASH_CV_SIZE,
             cvs + (count - 1) * TVIXB_HASH_CV_SIZE, TVIXB_HASH_CV_SIZE);
    }
  }
  memmove(out, cvs, TVIXB_HASH_CV_SIZE);
}

void tvixb_hash_part(const uint8_t* data, size_t size, uint64_t index,
                     uint8_t* cv) {
  const tvixb_hash_kernel* kernel = kernel_of(tvixb_cpu_best());
  uint8_t cvs[PART_CHUNKS * TVIXB_HASH_CV_SIZE];
  uint64_t counter = index * PART_CHUNKS;
  size_t lanes = kernel->library_lanes;
  size_t first = size / TVIXB_HASH_CHUNK_SIZE / lanes * lanes;
  for (size_t i = 0; i < first; i += MESSAGE_CHUNKS) {
    size_t count = first - i < MESSAGE_CHUNKS ? first - i : MESSAGE_CHUNKS;
    hash_chunks(kernel, data + i * TVIXB_HASH_CHUNK_SIZE, count, counter + i,
                cvs + i * TVIXB_HASH_CV_SIZE);
  }
  tvixb_hash_job jobs[TVIXB_HASH_LANES_MAX];
  size_t chunks = chunks_of(size), count = 0;
  for (size_t i = first; i < chunks; i++) {
    jobs[count] =
        chunk_job((tvixb_view){data, size}, i, cvs + i * TVIXB_HASH_CV_SIZE);
    jobs[count++].counter += counter;
  }
  kernel->run(jobs, count);
  join(kernel, cvs, chunks, false, cv);
}

void tvixb_hash_join(uint8_t* cvs, size_t n, uint8_t* digest) {
  join(kernel_of(tvixb_cpu_best()), cvs, n, true, digest);
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
