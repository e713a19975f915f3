// SPDX-License-Identifier: MIT
//
// Starts threads that make the library's first calls at the same time, each
// with its own context and all with the same messages. Their results must be
// those of a single thread. ThreadSanitizer finds data races (--config=tsan).
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <stdio.h>

#include "build.h"
#include "tvix_build.h"

#define THREADS 8
#define REPETITIONS 3
#define MESSAGES 6

// The data that all threads read.
static buffer data;
static uint64_t begins[MESSAGES], ends[MESSAGES];
static pthread_barrier_t start;

// The results of each thread.
typedef struct findings {
  uint8_t verdicts[MESSAGES];
  uint8_t digests[MESSAGES * TVIXB_DIGEST_SIZE];  // of canonical encodings
  uint8_t hashes[MESSAGES * TVIXB_DIGEST_SIZE];   // of the messages as they are
  uint64_t encoding_ends[MESSAGES];
  uint64_t violations;
} findings;

// Adds message i: arguments, which may be NULL, and `outputs` outputs.
static void add_message(size_t i, const char* before, uint32_t outputs,
                        uint32_t step, const char* last) {
  begins[i] = data.size;
  if (before) buffer_text(&data, 1, before);
  for (uint32_t n = 0; n < outputs; n++) {
    char name[16];
    snprintf(name, sizeof name, "out-%08u", (n + 1) * step % outputs);
    buffer_text(&data, 2, name);
  }
  if (last) buffer_text(&data, 1, last);
  ends[i] = data.size;
}

static void find(findings* found) {
  const tvixb_kind* kind = tvixb_kind_find("tvix.build.v1.BuildRequest");
  tvixb_context* context = tvixb_context_new();
  assert(kind && context);
  size_t room = tvixb_encoded_room(kind, data.size, begins, ends, MESSAGES);
  uint8_t* encoded = malloc(room);
  assert(encoded);
  tvixb_encodings encodings = {encoded, room, found->encoding_ends, 0};
  tvixb_results results = {found->verdicts, found->digests, &encodings};
  for (int keep = 1; keep >= 0; keep--) {
    // A large message is hashed piece by piece if its encoding is not kept.
    if (!keep) results.encodings = NULL;
    assert(tvixb_check(context, kind, data.data, data.size, begins, ends,
                       MESSAGES, &results) == TVIXB_OK);
  }
  assert(tvixb_blake3_many(data.data, data.size, begins, ends, MESSAGES,
                           found->hashes) == TVIXB_OK);
  size_t count;
  tvixb_violations(context, &count);
  found->violations = count;
  free(encoded);
  tvixb_context_free(context);
}

static void* run(void* state) {
  pthread_barrier_wait(&start);
  for (int i = 0; i < REPETITIONS; i++) find(state);
  return NULL;
}

int main(void) {
  add_message(0, NULL, 3, 1, NULL);        // no command
  add_message(1, "sh", 0, 1, NULL);        // canonical
  add_message(2, "sh", 50, 7, "-c");       // not the ordinary form
  add_message(3, "sh", 6000, 7, NULL);     // hashed by itself
  add_message(4, "sh", 100000, 7, NULL);   // hashed as a stream
  add_message(5, "sh", 2000, 1000, NULL);  // many duplicates
  static findings found[THREADS], alone;
  pthread_t threads[THREADS];
  assert(pthread_barrier_init(&start, NULL, THREADS) == 0);
  for (int i = 0; i < THREADS; i++) {
    assert(pthread_create(&threads[i], NULL, run, &found[i]) == 0);
  }
  for (int i = 0; i < THREADS; i++) assert(pthread_join(threads[i], NULL) == 0);
  pthread_barrier_destroy(&start);
  find(&alone);
  for (int i = 0; i < THREADS; i++) {
    assert(memcmp(&found[i], &alone, sizeof alone) == 0);
  }
  const uint8_t expected[MESSAGES] = {
      TVIXB_INVALID,  TVIXB_CANONICAL, TVIXB_UNSORTED,
      TVIXB_UNSORTED, TVIXB_UNSORTED,  TVIXB_INVALID,
  };
  assert(memcmp(alone.verdicts, expected, sizeof expected) == 0);
  assert(alone.violations > 100);
  free(data.data);
  return 0;
}
