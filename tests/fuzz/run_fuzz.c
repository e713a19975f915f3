// SPDX-License-Identifier: MIT
//
// Runs a fuzz target without a fuzzer, as an ordinary test with any compiler:
// on files, on the vectors in .json files, and on MUTANTS mutants of them,
// which are the same in each run.
//
// usage: NAME_fuzz_test MUTANTS DIRECTORY...
#define _GNU_SOURCE
#include <assert.h>
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE_LIMIT ((size_t)1 << 17)
#define FILE_LIMIT ((size_t)1 << 20)
#define SEEDS 4096

int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size);
size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);
// Optional for a target.
__attribute__((weak)) size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size,
                                                     size_t max_size,
                                                     unsigned seed);

static uint64_t state = 1;

static size_t random_below(size_t below) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (size_t)((state >> 33) % below);
}

// Changes, adds or removes a few bytes.
size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size) {
  for (size_t i = 1 + random_below(3); i; i--) {
    size_t at = random_below(size + 1), what = random_below(4);
    if (what == 0 && size < max_size) {
      memmove(data + at + 1, data + at, size - at);
      data[at] = (uint8_t)random_below(256);
      size++;
    } else if (what == 1 && at < size) {
      memmove(data + at, data + at + 1, size - at - 1);
      size--;
    } else if (at < size) {
      data[at] = what == 2 ? (uint8_t)random_below(256)
                           : (uint8_t)(data[at] ^ 1u << random_below(8));
    }
  }
  return size;
}

typedef struct seed {
  uint8_t* data;
  size_t size;
} seed;

static seed seeds[SEEDS];
static size_t seed_count;

static void add_seed(const uint8_t* data, size_t size) {
  uint8_t* copy = malloc(size + 1);
  assert(copy && size <= SIZE_LIMIT && seed_count < SEEDS);
  memcpy(copy, data, size);
  seeds[seed_count++] = (seed){copy, size};
}

// Adds the messages of a file of vectors, decoded in place.
static void read_vectors(char* text) {
  static const char key[] = "\"hex\": \"";
  while ((text = strstr(text, key))) {
    text += sizeof key - 1;
    uint8_t* data = (uint8_t*)text;
    size_t size = strcspn(text, "\"") / 2;
    for (size_t i = 0; i < size; i++) {
      const char digits[3] = {text[2 * i], text[2 * i + 1], 0};
      data[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    add_seed(data, size);
    text += 2 * size;
  }
}

static void read_file(const char* path) {
  FILE* file = fopen(path, "rb");
  char* data = malloc(FILE_LIMIT + 1);
  assert(file && data);
  size_t size = fread(data, 1, FILE_LIMIT, file);
  assert(size < FILE_LIMIT);
  data[size] = 0;
  fclose(file);
  const char* dot = strrchr(path, '.');
  if (dot && !strcmp(dot, ".json")) {
    read_vectors(data);
  } else {
    add_seed((const uint8_t*)data, size);
  }
  free(data);
}

static void read_directory(const char* path) {
  struct dirent** entries;
  int count = scandir(path, &entries, NULL, alphasort);
  assert(count >= 0);
  for (int i = 0; i < count; i++) {
    char file[4096];
    int length = snprintf(file, sizeof file, "%s/%s", path, entries[i]->d_name);
    assert(length > 0 && (size_t)length < sizeof file);
    if (entries[i]->d_name[0] != '.') read_file(file);
    free(entries[i]);
  }
  free(entries);
}

int main(int count, char** arguments) {
  assert(count > 1);
  long mutants = strtol(arguments[1], NULL, 10);
  for (int i = 2; i < count; i++) read_directory(arguments[i]);
  assert(seed_count);
  for (size_t i = 0; i < seed_count; i++) {
    LLVMFuzzerTestOneInput(seeds[i].data, seeds[i].size);
  }
  uint8_t* data = malloc(SIZE_LIMIT);
  assert(data);
  for (long i = 0; i < mutants; i++) {
    const seed* one = &seeds[random_below(seed_count)];
    size_t size = one->size;
    memcpy(data, one->data, size);
    for (size_t steps = 1 + random_below(6); steps; steps--) {
      size = LLVMFuzzerCustomMutator
                 ? LLVMFuzzerCustomMutator(data, size, SIZE_LIMIT,
                                           (unsigned)random_below(1u << 31))
                 : LLVMFuzzerMutate(data, size, SIZE_LIMIT);
    }
    uint8_t* exact = malloc(size + 1);
    memcpy(exact, data, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
  }
  free(data);
  printf("%zu messages and %ld mutants\n", seed_count, mutants);
  return 0;
}
