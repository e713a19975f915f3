// SPDX-License-Identifier: MIT
#include "peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "blake3.h"

#define DIGEST_SIZE 32

static void fail(const char* what) {
  perror(what);
  exit(2);
}

static void* allocate(size_t size) {
  void* memory = calloc(1, size ? size : 1);
  if (!memory) fail("memory");
  return memory;
}

static void read_file(const char* path, corpus* messages) {
  FILE* file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END)) fail(path);
  long size = ftell(file);
  if (size < 0) fail(path);
  rewind(file);
  messages->size = (size_t)size;
  messages->data = allocate(messages->size);
  if (fread(messages->data, 1, messages->size, file) != messages->size) {
    fail(path);
  }
  fclose(file);
}

// Finds the messages of the size-delimited stream; only counts them as long as
// there are no arrays.
static void split(corpus* messages) {
  messages->count = 0;
  for (size_t at = 0; at < messages->size; ++messages->count) {
    uint64_t size = 0;
    for (int shift = 0;; shift += 7) {
      uint8_t byte = messages->data[at++];
      size |= (uint64_t)(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    if (messages->begins) {
      messages->begins[messages->count] = at;
      messages->ends[messages->count] = at + size;
    }
    at += size;
  }
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void print_findings(const corpus* messages, const findings* found) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < messages->count; ++i) {
    bytes += messages->ends[i] - messages->begins[i];
  }
  printf("\"requests\": %zu, \"bytes\": %llu, \"valid\": %zu", messages->count,
         (unsigned long long)bytes, found->valid);
  uint8_t digest[DIGEST_SIZE];
  blake3_hasher hasher;
  blake3_hasher_init(&hasher);
  blake3_hasher_update(&hasher, found->digests, messages->count * DIGEST_SIZE);
  blake3_hasher_finalize(&hasher, digest, DIGEST_SIZE);
  printf(", \"digest\": \"");
  for (int i = 0; i < DIGEST_SIZE; ++i) printf("%02x", digest[i]);
  printf("\"}\n");
}

static void write_digests(const char* path, const corpus* messages,
                          const findings* found) {
  FILE* file = fopen(path, "wb");
  if (!file) fail(path);
  size_t written = fwrite(found->digests, DIGEST_SIZE, messages->count, file);
  if (written != messages->count || fclose(file)) fail(path);
  printf("{}\n");
}

int peer_serve(const char* path, void (*repeat)(const corpus*, findings*)) {
  corpus messages = {0};
  read_file(path, &messages);
  split(&messages);
  messages.begins = allocate(messages.count * sizeof(uint64_t));
  messages.ends = allocate(messages.count * sizeof(uint64_t));
  split(&messages);
  findings found = {0, allocate(messages.count * DIGEST_SIZE)};

  char line[4096];
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = '\0';
    unsigned repetitions;
    if (!strncmp(line, "digests ", 8)) {
      write_digests(line + 8, &messages, &found);
    } else if (sscanf(line, "run %u", &repetitions) == 1) {
      printf("{\"seconds\": [");
      for (unsigned i = 0; i < repetitions; ++i) {
        double start = now();
        repeat(&messages, &found);
        printf("%s%.9f", i ? ", " : "", now() - start);
      }
      printf("], ");
      print_findings(&messages, &found);
    }
    fflush(stdout);
  }
  return 0;
}
