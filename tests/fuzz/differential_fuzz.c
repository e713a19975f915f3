// SPDX-License-Identifier: MIT
//
// Checks any bytes as a message of every kind. The verdict, the violations and
// the encoding must be those of the reference in tests/, which decodes and
// encodes with the protobuf runtime. The reference runs in another process
// (reference_checker.py). TVIX_BUILD_REFERENCE is the path of that program; it
// is not needed in the workspace.
#define _GNU_SOURCE
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mutate.h"
#include "tvix_build.h"

#define BUILT_REFERENCE ".bazel/bin/tests/fuzz/reference_checker"

static const char* const verdicts[] = {
    [TVIXB_CANONICAL] = "canonical", [TVIXB_VALID] = "valid",
    [TVIXB_UNSORTED] = "unsorted",   [TVIXB_INVALID] = "invalid",
    [TVIXB_MALFORMED] = "malformed",
};

static FILE *to_reference, *from_reference;
static tvixb_context* context;

static void begin(void) {
  if (context) return;
  context = tvixb_context_new();
  const char* program = getenv("TVIX_BUILD_REFERENCE");
  int messages[2], results[2];
  if (!program) program = BUILT_REFERENCE;
  assert(context && !pipe2(messages, O_CLOEXEC) && !pipe2(results, O_CLOEXEC));
  pid_t child = fork();
  assert(child >= 0);
  if (child == 0) {
    dup2(messages[0], STDIN_FILENO);
    dup2(results[1], STDOUT_FILENO);
    execl(program, program, (char*)NULL);
    perror(program);
    _exit(127);
  }
  close(messages[0]);
  close(results[1]);
  to_reference = fdopen(messages[1], "w");
  from_reference = fdopen(results[0], "r");
  assert(to_reference && from_reference);
}

typedef struct result {
  char* data;  // for the caller to free
  size_t size;
} result;

// Returns the verdict and the number of violations, a line for each violation
// that is kept, an empty line, and the encoding.
static result engine_result(const tvixb_kind* kind, const uint8_t* data,
                            size_t size) {
  uint64_t first = 0, end = size, encoding_end = 0;
  uint8_t verdict, digest[TVIXB_DIGEST_SIZE];
  size_t room = tvixb_encoded_room(kind, size, &first, &end, 1);
  uint8_t* encoding = malloc(room + 1);
  tvixb_encodings encodings = {encoding, room, &encoding_end, 0};
  tvixb_results results = {&verdict, digest, &encodings};
  assert(encoding);
  assert(!tvixb_check(context, kind, data, size, &first, &end, 1, &results));
  size_t count, kept;
  const tvixb_violations_of* found =
      tvixb_violations_by_message(context, &count);
  const tvixb_violation* violations = tvixb_violations(context, &kept);
  result text;
  FILE* out = open_memstream(&text.data, &text.size);
  assert(out);
  fprintf(out, "%s %llu\n", verdicts[verdict],
          count ? (unsigned long long)found->total : 0);
  for (size_t i = 0; i < kept; i++) {
    char path[4096];
    tvixb_violation_path(kind, &violations[i], path, sizeof path);
    fprintf(out, "%s %s\n", tvixb_code_name(violations[i].code), path);
  }
  putc('\n', out);
  fwrite(encoding, 1, (size_t)encoding_end, out);
  assert(!fclose(out));
  free(encoding);
  return text;
}

static result reference_result(const char* name, const uint8_t* data,
                               size_t size) {
  fprintf(to_reference, "%s %zu\n", name, size);
  fwrite(data, 1, size, to_reference);
  fflush(to_reference);
  result text;
  if (fscanf(from_reference, "%zu", &text.size) != 1 ||
      getc(from_reference) != '\n') {
    fputs("the reference has ended\n", stderr);
    abort();
  }
  text.data = malloc(text.size + 1);
  assert(text.data);
  assert(fread(text.data, 1, text.size, from_reference) == text.size);
  return text;
}

static void compare(const tvixb_kind* kind, const uint8_t* data, size_t size) {
  const char* name = tvixb_kind_name(kind);
  result found = engine_result(kind, data, size);
  result expected = reference_result(name, data, size);
  if (found.size != expected.size ||
      memcmp(found.data, expected.data, found.size)) {
    fprintf(stderr, "%s: found\n", name);
    fwrite(found.data, 1, found.size, stderr);
    fputs("\nexpected\n", stderr);
    fwrite(expected.data, 1, expected.size, stderr);
    abort();
  }
  free(found.data);
  free(expected.data);
}

int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size) {
  begin();
  const tvixb_kind* kind;
  for (size_t i = 0; (kind = tvixb_kind_at(i)); i++) {
    compare(kind, input, size);
  }
  return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                               unsigned seed);
size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                               unsigned seed) {
  return mutate(data, size, max_size, seed);
}
